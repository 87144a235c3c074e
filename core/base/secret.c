/* SPDX-License-Identifier: MIT */
/* Memory that is wiped before it is freed. */
#include "base/secret.h"

#include <stdlib.h>
#include <string.h>

/* Called through a volatile pointer, so that no compiler removes it as a dead
 * store. */
static void *(*const volatile wipe)(void *, int, size_t) = memset;

void nymbl__secret_wipe(void *data, size_t size)
{
    wipe(data, 0, size);
}

void nymbl__secret_free(char *text)
{
    if (text == NULL)
        return;
    nymbl__secret_wipe(text, strlen(text));
    free(text);
}
