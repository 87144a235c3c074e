/* SPDX-License-Identifier: MIT */
/* The token endpoint's response, read by nymbl_token_read(). */
#include "fuzz.h"
#include "nymbl.h"

static unsigned read_count, refused, too_long;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const nymbl_token wiped;
    nymbl_token token;
    nymbl_error err = {.reason = NULL};
    nymbl_kind kind;

    memset(&token, 'x', sizeof(token));
    kind = nymbl_token_read(&token, (const char *)data, size, &err);
    if (kind != NYMBL_OK) {
        require(kind == NYMBL_PROTOCOL && err.kind == kind, "kind");
        require(memcmp(&token, &wiped, sizeof(token)) == 0, "wiped");
        if (strcmp(err.reason, "response_too_long") == 0)
            too_long++;
        else
            require(strcmp(err.reason, "token_response") == 0, "reason");
        refused++;
        return 0;
    }
    require(*token.value != '\0', "token");
    for (const char *at = token.value; *at != '\0'; at++)
        require(*at >= '!' && *at <= '~', "visible ASCII");
    require(token.expires_in > 0 && token.expires_in <= 24 * 3600, "lifetime");
    read_count++;
    return 0;
}

bool fuzz_report(void)
{
    printf("%u read, %u refused, %u of them too long\n", read_count, refused,
           too_long);
    return read_count > 0 && refused > 0 && too_long > 0;
}
