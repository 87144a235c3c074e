/* SPDX-License-Identifier: MIT */
/* nymbl.h needs no other header before it, and may be included twice. */
#include "nymbl.h"
#include "nymbl.h"

int used(void);

int used(void)
{
    nymbl_error err = {NYMBL_OK, 0, NULL, -1.0, false};
    nymbl_upload_options options = {.file_name = "a", .content_type = "b/c"};

    return err.kind < 0 || options.is_rewindable;
}
