/* SPDX-License-Identifier: MIT */
/* Copies of texts. */
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

nymbl_kind nymbl__text_copy(char **out, const char *text)
{
    size_t size;

    *out = NULL;
    if (text == NULL)
        return NYMBL_OK;
    size = strlen(text) + 1;
    *out = malloc(size);
    if (*out == NULL)
        return NYMBL_NO_MEMORY;
    memcpy(*out, text, size);
    return NYMBL_OK;
}
