/* SPDX-License-Identifier: MIT */
/* Memory that is wiped before it is freed. */
#ifndef NYMBL_BASE_SECRET_H
#define NYMBL_BASE_SECRET_H

#include <stddef.h>

/* Overwrite memory with zeros. */
void nymbl__secret_wipe(void *data, size_t size);
/* Wipe and free text. NULL does nothing. */
void nymbl__secret_free(char *text);

#endif
