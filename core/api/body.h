/* SPDX-License-Identifier: MIT */
/* Bodies of uploads. */
#ifndef NYMBL_API_BODY_H
#define NYMBL_API_BODY_H

#include "api/calls.h"

#define NYMBL__SEND_WINDOW (128u << 10)
#define NYMBL__LEARN_MAX (1u << 20) /* held back to learn a body's size */

void nymbl__body_retain(nymbl_body *body);
/* Bind the body to the transfer that sends it, from its first byte. */
nymbl_kind nymbl__body_attach(nymbl_body *body, nymbl_transfer *transfer,
                              int64_t max, nymbl_error *err);
/* Let it go; `refuse`: pushes are told that no more is taken. */
void nymbl__body_detach(nymbl_body *body);
bool nymbl__body_all_released(const nymbl_body *body);
bool nymbl__body_is_pushed(const nymbl_body *body);
/* Under the lock: whether a paused send has something to go on with. */
bool nymbl__body_can_go_on(const nymbl_body *body);
int64_t nymbl__body_released(const nymbl_body *body);
/* Set the multipart body on an easy handle; *mime is freed by the caller. */
nymbl_kind nymbl__body_apply(nymbl_body *body, const nymbl__form *form,
                             CURL *easy, curl_mime **mime);

#endif
