/* SPDX-License-Identifier: MIT */
/* The metadata of a partial file: what is accepted would be written like that,
 * and is safe to send. The input is the file. */
#include "file/meta.h"
#include "base/validator.h"
#include "file.h"
#include "fuzz.h"

#include <unistd.h>

#define NAME "doc.nymbl-meta"
#define RESOURCE                                                               \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static unsigned accepted, rejected, whole;

static bool meta_read(char *validator, nymbl__meta_state *state)
{
    return nymbl__meta_read(files_dir(), NAME, RESOURCE, validator, state);
}

static void require_same(const nymbl__meta_state *a, const char *validator)
{
    char again[NYMBL__VALIDATOR_MAX];
    nymbl__meta_state state;

    require(meta_read(again, &state), "what was written is read");
    require(strcmp(again, validator) == 0, "validator");
    require(state.length == a->length && state.complete == a->complete &&
                strcmp(state.boot, a->boot) == 0,
            "state");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    char validator[NYMBL__VALIDATOR_MAX], *file;
    nymbl__meta_state state;
    size_t all;

    if (!ready)
        files_open();
    ready = true;
    file_put(NAME, data, size);
    if (!meta_read(validator, &state)) {
        rejected++;
        return 0;
    }
    accepted++;
    whole += state.complete;
    require(nymbl__validator_is_valid(validator), "validator");
    require(strpbrk(validator, "\r\n") == NULL, "line end in a validator");
    require(state.length >= 0, "length");
    require(!state.complete || *state.boot == '\0', "complete, not flushed");
    /* other documents have other metadata */
    require(!nymbl__meta_read(files_dir(), NAME, "0123", validator, &state),
            "resource");
    require(meta_read(validator, &state), "read again");
    /* in place, as an interrupted download does */
    require(nymbl__meta_update(files_dir(), NAME, &state, false), "update");
    require_same(&state, validator);
    unlink(file_path(NAME));
    require(nymbl__meta_create(files_dir(), NAME, RESOURCE, validator),
            "create");
    require(nymbl__meta_update(files_dir(), NAME, &state, false), "update");
    require_same(&state, validator);
    file = file_get(NAME, &all);
    require(all == size, "another size than when written");
    free(file);
    return 0;
}

bool fuzz_report(void)
{
    printf("%u accepted (%u of complete files), %u rejected\n", accepted, whole,
           rejected);
    return accepted > 0 && whole > 0 && rejected > 0;
}
