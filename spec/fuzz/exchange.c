/* SPDX-License-Identifier: MIT */
/* One exchange: a program's calls on a transfer, alternating with the server's
 * steps. */
#include "response.h"

#include <stdlib.h>

#define ROUNDS_MAX 20000
#define STALLS_MAX 40

bool is_upload(int operation)
{
    return operation >= FROM_BYTES && operation <= FROM_UNSIZED_STREAM;
}

bool is_download(int operation)
{
    return operation >= TO_PATH && operation <= RESUMED;
}

bool is_from_stream(int operation)
{
    return operation == FROM_STREAM || operation == FROM_UNSIZED_STREAM;
}

const char *content(void)
{
    return settings.big ? large : small;
}

size_t content_size(void)
{
    return settings.big ? LARGE_SIZE : SMALL_SIZE;
}

size_t stream_size(void)
{
    return settings.short_stream ? content_size() / 2 : content_size();
}

static void stream_write(exchange *x)
{
    size_t left = stream_size() - x->written, taken;

    if (left > 7000)
        left = 7000;
    if (left > 0) {
        nymbl_body_write(x->body, content() + x->written, left, &taken);
        x->written += taken;
    }
    if (x->written == stream_size())
        nymbl_body_finish(x->body);
}

static nymbl_kind upload_start(exchange *x)
{
    nymbl_upload_options options = {
        .file_name = "a.pdf",
        .content_type = "application/pdf",
        .document_type = "Referral",
        .is_rewindable = !settings.expect,
        .progress = settings.progress,
    };
    char path[128];
    nymbl_kind kind;

    switch (x->operation) {
    case FROM_BYTES:
        kind = nymbl_body_from_bytes(&x->body, content(), content_size(), NULL);
        break;
    case FROM_PATH:
        path_make(path, sizeof(path), base, settings.big ? "large" : "small");
        kind = nymbl_body_from_path(&x->body, path, NULL);
        break;
    case FROM_STREAM:
        kind = nymbl_body_stream(&x->body, (int64_t)content_size(), NULL);
        break;
    default:
        kind = nymbl_body_stream(&x->body, -1, NULL);
        while (!nymbl_body_is_ready(x->body) && x->written < stream_size())
            stream_write(x);
        break;
    }
    if (kind != NYMBL_OK)
        abort();
    return nymbl_upload_start(&x->transfer, engine, client, "tok", "7", x->body,
                              &options, &x->error);
}

static nymbl_kind download_start(exchange *x)
{
    nymbl_download_options options = {
        .path = x->operation != TO_WINDOW ? target : NULL,
        .no_overwrite = settings.no_overwrite,
        .resume = x->operation == RESUMED,
        .content_type = settings.has_type ? "application/pdf" : NULL,
        .has_size = settings.has_size,
        .size = settings.size,
        .progress = settings.progress,
    };

    return nymbl_download_start(&x->transfer, engine, client, "tok", "7", "9",
                                &options, &x->error);
}

static nymbl_kind start(exchange *x)
{
    switch (x->operation) {
    case TOKEN:
        return nymbl_token_start(&x->transfer, engine, client, &x->error);
    case LIST:
        return nymbl_list_start(&x->transfer, engine, client, "tok", "7", NULL,
                                &x->error);
    case GET:
        return nymbl_get_start(&x->transfer, engine, client, "tok", "7", "9",
                               &x->error);
    case DELETE:
        return nymbl_delete_start(&x->transfer, engine, client, "tok", "7", "9",
                                  &x->error);
    default:
        return is_upload(x->operation) ? upload_start(x) : download_start(x);
    }
}

/* The caller's step between waits. Returns whether bytes were transferred. */
static bool caller_step(exchange *x, unsigned round)
{
    nymbl_counts counts;
    char piece[10007];
    size_t got, before = x->written + x->read.size;

    if (is_from_stream(x->operation) && x->written < stream_size())
        stream_write(x);
    if (x->operation == TO_WINDOW && !x->read_done &&
        (!settings.big || round % 5 == 0)) {
        nymbl_error error;
        nymbl_kind kind;

        do {
            kind = nymbl_transfer_read(x->transfer, piece, sizeof(piece), &got,
                                       &error);
            if (kind == NYMBL_OK)
                bytes_add(&x->read, piece, got);
        } while (kind == NYMBL_OK && !settings.big);
        x->read_done = kind == NYMBL_DONE;
    }
    if (settings.progress) {
        nymbl_transfer_counts(x->transfer, &counts);
        nymbl_transfer_confirm(x->transfer, counts.body_received);
    }
    if (server.cancel && !x->canceled) {
        nymbl_transfer_cancel(x->transfer, NYMBL_CANCELED, NULL);
        x->canceled = true;
    }
    return x->written + x->read.size != before;
}

static void exchange_run(exchange *x)
{
    unsigned quiet = 0, stalls = 0;

    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        nymbl_counts before, after;
        bool moved;

        nymbl_transfer_counts(x->transfer, &before);
        moved = caller_step(x, round);
        x->kind = nymbl_transfer_result(x->transfer, &x->error);
        if (x->kind != NYMBL_AGAIN || problem != NULL)
            return;
        nymbl_engine_pump(engine, 0);
        moved = server_step() || moved;
        nymbl_transfer_counts(x->transfer, &after);
        moved = moved || before.body_sent != after.body_sent ||
                before.body_received != after.body_received;
        quiet = moved ? 0 : quiet + 1;
        if (quiet < 6)
            continue;
        quiet = 0;
        if (server_unstick())
            continue;
        if (stalls++ == STALLS_MAX) {
            broken("it hangs");
            return;
        }
        tick = 31;
        nymbl_engine_pump(engine, 0.001);
        tick = 0;
    }
    broken("it goes on without end");
}

void exchange_make(int operation)
{
    exchange x = {.operation = operation,
                  .first_request = server.request_count};
    char path[128];
    nymbl_kind kind;

    path_make(path, sizeof(path), dir, "document.nymbl-part");
    x.old_exists = file_read(target, &x.old);
    x.part_exists = file_read(path, &x.part);
    path_make(path, sizeof(path), dir, "document.nymbl-meta");
    file_read(path, &x.meta);
    bytes_add(&x.read, "", 0);
    server.cancel = false;
    server.part = x.part.size;
    kind = start(&x);
    if (kind == NYMBL_OK) {
        exchange_run(&x);
        server_drain();
        if (problem == NULL && !server.overrun)
            exchange_check(&x);
    } else {
        need((kind == NYMBL_IO && settings.no_overwrite && x.old_exists &&
              is_download(operation)) ||
                 (kind == NYMBL_IO && settings.short_stream &&
                  is_from_stream(operation)),
             "it cannot be started");
    }
    need(!server.overrun, "connections or requests without end");
    nymbl_transfer_free(x.transfer);
    nymbl_body_free(x.body);
    bytes_free(&x.old);
    bytes_free(&x.part);
    bytes_free(&x.meta);
    bytes_free(&x.read);
}
