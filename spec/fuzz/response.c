/* SPDX-License-Identifier: MIT */
/* Complete responses over a socket: two exchanges of one engine and one client,
 * so that the second one meets the state that the first one left.
 *
 * An input begins with seven characters: the operations of both exchanges (see
 * `operations`), two sets of flags and the document's size (see settings_read),
 * and an ignored character. The rest is the server's script (see server.c).
 *
 * Whatever the server does, these invariants must hold:
 *   - a success has a response that is complete by RFC 9112, and its bytes;
 *   - a file is the complete document, or unchanged, and nothing else is left
 *     except a partial file that can be resumed;
 *   - bytes that were sent before a request are not a response to it;
 *   - an upload or delete is sent once, and an unknown outcome is not reported
 *     as a failure;
 *   - a request contains no bytes from the server except a redirect's target
 *     and a validator that RFC 9110 allows;
 *   - a failure's kind fits its status, and nothing is leaked. */
#include "response.h"
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char old_bytes[] = "the old file";

const char operations[] = "tlgpwrbfsud";
struct settings settings;
struct reached reached;
const char *problem;

void broken(const char *what)
{
    if (problem == NULL)
        problem = what;
}

void need(bool good, const char *what)
{
    if (!good)
        broken(what);
}

static unsigned digit(uint8_t byte)
{
    return (unsigned)(byte - '0') & 63;
}

static int operation_of(uint8_t byte)
{
    const char *at = byte != 0 ? strchr(operations, byte) : NULL;

    return at != NULL ? (int)(at - operations) : byte % OPERATIONS;
}

static void settings_read(const uint8_t *data)
{
    static const size_t pieces[] = {0, 1, 7, 100};
    unsigned flags = digit(data[2]), more = digit(data[3]);

    settings = (struct settings){
        .operation = {operation_of(data[0]), operation_of(data[1])},
        .old_file = flags & 1,
        .has_size = flags & 2,
        .has_type = flags & 4,
        .no_overwrite = flags & 8,
        .progress = flags & 16,
        .big = flags & 32, /* uploads, and windows that are read slowly */
        .expect = more & 8,
        .idle_between = more & 16,
        .short_stream = more & 32,
        .size = digit(data[4]) * 64 + digit(data[5]),
    };
    server.early = more & 1;
    server.piece = pieces[more >> 1 & 3];
    server.pieces = 300;
}

static const char *run(const uint8_t *data, size_t size)
{
    int fd = fd_lowest();

    problem = NULL;
    description[0] = '\0';
    server_begin(data + 7, size - 7);
    settings_read(data);
    if (settings.old_file)
        file_write(target, old_bytes, sizeof(old_bytes));
    world_open();
    exchange_make(settings.operation[0]);
    for (int i = 0; settings.idle_between && i < 12; i++) {
        nymbl_engine_pump(engine, 0);
        server_step();
    }
    if (problem == NULL)
        exchange_make(settings.operation[1]);
    server_reset();
    world_close();
    need(nymbl_object_count() == 0, "objects are alive");
    need(fd_lowest() == fd, "a descriptor is open");
    folder_empty();
    return problem;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    const char *why = NULL;

    if (size < 7)
        return 0;
    if (!ready) { /* what libraries open once is not a leak */
        ready = true;
        target_open();
        run((const uint8_t *)"gg0000\n", 7);
    }
    /* A loopback connection may be delayed on a busy machine: only repeatable
     * findings count. */
    for (int i = 0; i < 3; i++) {
        why = run(data, size);
        if (why == NULL)
            break;
    }
    reached.inputs++;
    if (why != NULL) {
        fprintf(stderr, "BROKEN: %s: %s\n", why, description);
        abort();
    }
    return 0;
}

bool fuzz_report(void)
{
    bool all =
        reached.resumed > 0 && reached.redirected > 0 && reached.reused > 0;

    for (int i = 0; i < OPERATIONS; i++) {
        printf("%c: %u succeeded, %u failed\n", operations[i],
               reached.success[i], reached.failure[i]);
        all = all && reached.success[i] > 0 && reached.failure[i] > 0;
    }
    printf("%u resumed, %u redirected, %u on a used connection\n",
           reached.resumed, reached.redirected, reached.reused);
    return all;
}
