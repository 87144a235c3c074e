/* SPDX-License-Identifier: MIT */
/* Copies of texts. */
#ifndef NYMBL_BASE_TEXT_H
#define NYMBL_BASE_TEXT_H

#include "nymbl.h"

/* Duplicate a text; NULL becomes NULL. Returns NYMBL_OK or NYMBL_NO_MEMORY. */
nymbl_kind nymbl__text_copy(char **out, const char *text);

#endif
