/* SPDX-License-Identifier: MIT */
/* Downloads: the target, and the range that is requested. */
#ifndef NYMBL_API_DOWNLOAD_H
#define NYMBL_API_DOWNLOAD_H

#include "engine/transfer.h"
#include "nymbl.h"

/* Whether the options, which may be NULL, are valid. */
bool nymbl__download_is_valid(const nymbl_download_options *options);
/* Open the target and add the header lines of a range. The transfer has its
 * URL. */
nymbl_kind nymbl__download_prepare(nymbl_transfer *transfer,
                                   const nymbl_download_options *options,
                                   nymbl_error *err);

#endif
