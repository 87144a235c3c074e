/* SPDX-License-Identifier: MIT */
/* Uploads that must not arrive completely: the connection is closed in time. */
#include "source.h"

#include <fcntl.h>
#include <sys/stat.h>

#define MEGABYTE (1024 * 1024)

/* At least the last byte of the document has not arrived. */
static void check_cut(peer *peer, request *request, size_t size)
{
    peer_read(peer, request);
    CHECK(request->cut);
    CHECK(request->body.size < size + 500);
    if (request->body.data != NULL)
        CHECK(strstr(request->body.data, "--\r\n") == NULL);
    request_free(request);
    peer_close(peer);
}

static void body_over_the_limit_is_refused_at_once(void)
{
    nymbl_upload_options options = {.file_name = "a", .content_type = "b/c"};
    nymbl_body *bodies[3];
    nymbl_error err;

    world_open(&(nymbl_client_options){.max_upload_bytes = 10});
    bodies[0] = body_of("0123456789a", 11);
    world_write("up", "0123456789a", 11);
    REQUIRE(nymbl_body_from_path(&bodies[1], world_path("up"), NULL) ==
            NYMBL_OK);
    REQUIRE(nymbl_body_stream(&bodies[2], 11, NULL) == NYMBL_OK);
    for (int i = 0; i < 3; i++) {
        nymbl_transfer *transfer;

        CHECK(nymbl_upload_start(&transfer, world.engine, world.client, "tok",
                                 "7", bodies[i], &options,
                                 &err) == NYMBL_TOO_LARGE);
        CHECK(transfer == NULL);
        CHECK(!err.outcome_unknown);
        nymbl_body_free(bodies[i]);
    }
    world_settle();
    CHECK(!peer_waits());
    world_close();
}

static void stream_over_the_limit_is_aborted_before_its_last_chunk(void)
{
    char *data = pattern(3 * MEGABYTE);
    nymbl_transfer *transfer;
    nymbl_error err;
    request request;
    peer peer;

    world_open(&(nymbl_client_options){.max_upload_bytes = 2 * MEGABYTE});
    source_open(-1, data, 3 * MEGABYTE, true);
    source_ready();
    transfer = start_upload(source.body);
    peer_accept(&peer);
    check_cut(&peer, &request, 2 * MEGABYTE);
    CHECK(ended(transfer, &err) == NYMBL_TOO_LARGE);
    CHECK(!err.outcome_unknown);
    source_close();
    nymbl_transfer_free(transfer);
    free(data);
    world_close();
}

static void stream_of_another_size_is_cut(int64_t stated, size_t size)
{
    char *data = pattern(size);
    nymbl_transfer *transfer;
    nymbl_error err;
    request request;
    void (*push)(void);
    peer peer;

    world_open(NULL);
    source_open(stated, data, size, true);
    push = world.step;
    world.step = NULL; /* a source that ends first lets the upload fail */
    transfer = start_upload(source.body);
    peer_accept(&peer);
    world.step = push;
    check_cut(&peer, &request, (size_t)stated);
    CHECK(ended(transfer, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "size_mismatch");
    CHECK(!err.outcome_unknown);
    CHECK(counts_of(transfer).body_sent < stated);
    source_close();
    nymbl_transfer_free(transfer);
    free(data);
    world_close();
}

static void stream_that_is_too_short_is_aborted(void)
{
    stream_of_another_size_is_cut(100000, 99999);
    stream_of_another_size_is_cut(400000, 70000);
}

static void stream_that_is_too_long_is_aborted(void)
{
    stream_of_another_size_is_cut(99999, 100000);
    stream_of_another_size_is_cut(7777 * 30, 7777 * 31);
}

static void last_byte_waits_for_the_source_to_finish(void)
{
    char *data = pattern(5000);
    nymbl_transfer *transfer;
    nymbl_error err;
    request request;
    peer peer;

    world_open(NULL);
    source_open(5000, data, 5000, false);
    transfer = start_upload(source.body);
    peer_accept(&peer);
    peer_read_head(&peer, &request);
    while (peer.in.size < 5000)
        peer_await(&peer, peer.in.size + 1);
    AWAIT(counts_of(transfer).body_sent == 4999);
    world_settle();
    CHECK_NUMBER(counts_of(transfer).body_sent, 4999);
    nymbl_transfer_cancel(transfer, NYMBL_CANCELED, NULL);
    CHECK(ended(transfer, &err) == NYMBL_CANCELED);
    CHECK(!err.outcome_unknown);
    CHECK(!peer_await(&peer, 1 << 20));
    CHECK(memcmp(peer.in.data + peer.in.size - 4999, data, 4999) == 0);
    source_close();
    nymbl_transfer_free(transfer);
    request_free(&request);
    peer_close(&peer);
    free(data);
    world_close();
}

/* The file changes during the upload. */
static void changing_file_is_cut(void (*change)(const char *path))
{
    char *data = pattern(6 * MEGABYTE);
    nymbl_body *body;
    nymbl_transfer *transfer;
    nymbl_error err;
    request request;
    peer peer;

    world_open(NULL);
    world_write("up", data, 6 * MEGABYTE);
    REQUIRE(nymbl_body_from_path(&body, world_path("up"), NULL) == NYMBL_OK);
    transfer = start_upload(body);
    peer_accept(&peer);
    peer_await(&peer, 100000);
    CHECK(counts_of(transfer).body_sent < 6 * MEGABYTE);
    change(world_path("up"));
    check_cut(&peer, &request, 6 * MEGABYTE);
    CHECK(ended(transfer, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "changed");
    CHECK(!err.outcome_unknown);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    free(data);
    world_close();
}

static void file_append(const char *path)
{
    FILE *file = fopen(path, "ab");

    CHECK(fputs("more", file) >= 0);
    fclose(file);
}

static void file_shorten(const char *path)
{
    CHECK(truncate(path, 5 * MEGABYTE) == 0);
}

static void file_touch(const char *path)
{
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
}

/* Modify bytes that were already sent, and restore the old time. */
static void file_rewrite(const char *path)
{
    struct timespec times[2];
    struct stat before;
    FILE *file = fopen(path, "r+b");
    char byte = 'x';

    REQUIRE(file != NULL && stat(path, &before) == 0);
    CHECK(fseek(file, 10, SEEK_SET) == 0);
    CHECK(fwrite(&byte, 1, 1, file) == 1 && fclose(file) == 0);
    times[0] = before.st_atim;
    times[1] = before.st_mtim;
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
}

static void file_that_changes_during_the_upload_is_aborted(void)
{
    changing_file_is_cut(file_rewrite);
    changing_file_is_cut(file_append);
    changing_file_is_cut(file_shorten);
    changing_file_is_cut(file_touch);
}

static void refusal_during_the_upload_ends_the_stream(void)
{
    char *data = pattern(3 * MEGABYTE);
    nymbl_transfer *transfer;
    nymbl_error err;
    request request;
    peer peer;

    world_open(NULL);
    source_open(3 * MEGABYTE, data, 3 * MEGABYTE, true);
    transfer = start_upload(source.body);
    peer_accept(&peer);
    peer_read_head(&peer, &request);
    peer_say(&peer, "HTTP/1.1 100 Continue\r\n\r\n");
    peer_await(&peer, 100000);
    peer_respond(&peer, 413, "Connection: close\r\n", "{}");
    CHECK(ended(transfer, &err) == NYMBL_TOO_LARGE);
    CHECK_NUMBER(err.status, 413);
    CHECK(!err.outcome_unknown);
    world_step();
    CHECK(source.last == NYMBL_DONE);
    nymbl_transfer_free(transfer);
    source_close();
    request_free(&request);
    peer_close(&peer);
    free(data);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(body_over_the_limit_is_refused_at_once),
        TEST(stream_over_the_limit_is_aborted_before_its_last_chunk),
        TEST(stream_that_is_too_short_is_aborted),
        TEST(stream_that_is_too_long_is_aborted),
        TEST(last_byte_waits_for_the_source_to_finish),
        TEST(file_that_changes_during_the_upload_is_aborted),
        TEST(refusal_during_the_upload_ends_the_stream),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
