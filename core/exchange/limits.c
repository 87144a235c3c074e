/* SPDX-License-Identifier: MIT */
/* Time limits of a transfer, in seconds that were spent polling for it. */
#include "exchange/limits.h"

#include "api/body.h"
#include "api/calls.h"
#include "api/client.h"
#include "exchange/exchange.h"
#include "exchange/head.h"
#include "exchange/verdict.h"

/* "100 Continue" and its like are no reply yet. */
static bool reply_has_begun(const nymbl_transfer *transfer)
{
    return transfer->head.status >= 200;
}

static bool reply_is_held(const nymbl_transfer *transfer)
{
    const nymbl__reply_head *head = &transfer->head;

    switch (transfer->request.operation) {
    case NYMBL__UPLOAD:
        return reply_has_begun(transfer);
    case NYMBL__DOWNLOAD:
        return !head->done || !nymbl__verdict_is_success(transfer);
    default:
        return true;
    }
}

static double idle_limit(const nymbl_transfer *transfer)
{
    double seconds = transfer->client->stall_timeout;

    if (transfer->body != NULL && !reply_has_begun(transfer) &&
        nymbl__body_all_released(transfer->body) &&
        seconds < NYMBL__UPLOAD_REPLY_SECONDS)
        return NYMBL__UPLOAD_REPLY_SECONDS;
    return seconds;
}

/* The owner's turn, not the peer's. */
static bool owner_is_awaited(const nymbl_transfer *transfer)
{
    return transfer->receive_paused || transfer->send_paused ||
           transfer->parked;
}

void nymbl__transfer_charge(nymbl_transfer *transfer, double seconds)
{
    if (owner_is_awaited(transfer))
        return;
    if (!transfer->sent_this_hop) {
        transfer->connect_time += seconds;
        return;
    }
    transfer->idle_time += seconds;
    if (reply_is_held(transfer))
        transfer->reply_time += seconds;
}

double nymbl__transfer_left(const nymbl_transfer *transfer)
{
    double left, reply;

    if (owner_is_awaited(transfer))
        return 3600;
    if (!transfer->sent_this_hop)
        return transfer->client->connect_timeout - transfer->connect_time;
    left = idle_limit(transfer) - transfer->idle_time;
    reply = NYMBL__REPLY_SECONDS - transfer->reply_time;
    return reply_is_held(transfer) && reply < left ? reply : left;
}

void nymbl__transfer_enforce(nymbl_transfer *transfer)
{
    curl_off_t up = 0;

    if (transfer->over)
        return;
    /* What libcurl has taken may lie in its buffer for long: bytes that left
     * count as movement too. */
    if (!transfer->moved && transfer->body != NULL && transfer->easy != NULL) {
        curl_easy_getinfo(transfer->easy, CURLINFO_SIZE_UPLOAD_T, &up);
        transfer->moved = up != transfer->moved_up;
        transfer->moved_up = up;
    }
    if (transfer->moved)
        transfer->idle_time = 0;
    transfer->moved = false;
    if (nymbl__transfer_left(transfer) > 0)
        return;
    if (!transfer->sent_this_hop)
        nymbl__transfer_abort(transfer, NYMBL_TIMEOUT, "connect");
    else if (transfer->idle_time >= idle_limit(transfer))
        nymbl__transfer_abort(transfer, NYMBL_TIMEOUT, "stall");
    else
        nymbl__transfer_abort(transfer, NYMBL_TIMEOUT, "reply");
}
