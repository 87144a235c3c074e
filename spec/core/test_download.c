/* SPDX-License-Identifier: MIT */
/* Downloads: complete and correct, or a failure; bounded memory if the
 * caller does not read. */
#include "peer.h"

#include <sys/stat.h>

#define MEGABYTE (1024 * 1024)

/* Accept the connection of a started download, and check its request. */
static nymbl_transfer *document_asked(nymbl_transfer *transfer, peer *peer)
{
    request request;

    peer_accept(peer);
    peer_read(peer, &request);
    CHECK(request_begins(&request,
                         "GET /v1/Patients(7)/Documents(9)/$value HTTP/1.1"));
    CHECK_TEXT(request_field(&request, "Accept"), "*/*");
    CHECK(request_field(&request, "Accept-Encoding") == NULL);
    request_free(&request);
    return transfer;
}

static void download_by_reading_returns_all_bytes(void)
{
    char *data = pattern(MEGABYTE + 7);
    nymbl_transfer *transfer;
    nymbl_response head;
    text got = {0};
    peer peer;

    world_open(NULL);
    transfer = document_asked(start_download(&(nymbl_download_options){
                                  .has_size = true, .size = MEGABYTE + 7}),
                              &peer);
    CHECK(nymbl_transfer_response(transfer, &head, NULL) == NYMBL_AGAIN);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
                    "Content-Length: 1048583\r\n\r\n");
    AWAIT(nymbl_transfer_response(transfer, &head, NULL) == NYMBL_OK);
    CHECK_NUMBER(head.content_length, MEGABYTE + 7);
    CHECK_TEXT(head.content_type, "image/png");
    for (size_t at = 0; at < MEGABYTE + 7; at += 65536) {
        size_t piece = MEGABYTE + 7 - at < 65536 ? MEGABYTE + 7 - at : 65536;
        char *read = malloc(piece);
        size_t size, have = 0;

        peer_send(&peer, data + at, piece);
        while (have < piece && at + piece < MEGABYTE + 7) {
            nymbl_kind kind =
                nymbl_transfer_read(transfer, read, piece - have, &size, NULL);

            REQUIRE(kind >= 0 && kind != NYMBL_DONE);
            text_add(&got, read, size);
            have += size;
            world_step();
        }
        free(read);
    }
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK(got.size == MEGABYTE + 7 && memcmp(got.data, data, got.size) == 0);
    CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    text_free(&got);
    free(data);
    peer_close(&peer);
    world_close();
}

static void download_to_a_path_replaces_the_file(void)
{
    nymbl_download_options options = {.mode = 0640};
    char *data = pattern(2 * MEGABYTE);
    nymbl_transfer *transfer;
    struct stat status;
    text got;
    peer peer;

    world_open(NULL);
    world_write("doc", "old", 3);
    options.path = world_path("doc");
    transfer = document_asked(start_download(&options), &peer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n");
    peer_send(&peer, data, 2 * MEGABYTE - 1);
    world_settle();
    got = world_read("doc");
    CHECK_TEXT(got.data, "old");
    text_free(&got);
    CHECK_NUMBER(world_files(), 1);
    peer_send(&peer, data + 2 * MEGABYTE - 1, 1);
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    got = world_read("doc");
    CHECK(got.size == 2 * MEGABYTE && memcmp(got.data, data, got.size) == 0);
    text_free(&got);
    CHECK_NUMBER(world_names(), 1);
    CHECK(stat(world_path("doc"), &status) == 0);
    CHECK_NUMBER(status.st_mode & 0777, 0640);
    nymbl_transfer_free(transfer);
    free(data);
    peer_close(&peer);
    world_close();
}

/* The SHA-256 of no byte at all and of "abc" (FIPS 180-4's example). */
static void digest_is_that_of_the_document(void)
{
    static const struct {
        const char *content, *digest;
    } known[] = {
        {"",
         "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc",
         "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    };

    for (size_t i = 0; i < 4; i++) {
        nymbl_download_options options = {.sha256 = true};
        nymbl_transfer *transfer;
        text got = {0};
        peer peer;

        world_open(NULL);
        if (i >= 2)
            options.path = world_path("doc");
        transfer = document_asked(start_download(&options), &peer);
        CHECK(nymbl_transfer_sha256(transfer) == NULL);
        peer_respond(&peer, 200, "", known[i % 2].content);
        if (options.path != NULL)
            CHECK(ended(transfer, NULL) == NYMBL_OK);
        else
            CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
        CHECK_TEXT(nymbl_transfer_sha256(transfer), known[i % 2].digest);
        nymbl_transfer_free(transfer);
        text_free(&got);
        peer_close(&peer);
        world_clear(".");
        world_close();
    }
}

/* A transfer that fails, or was not asked for a digest, has none. */
static void digest_of_a_failed_download_does_not_exist(void)
{
    for (int wanted = 0; wanted < 2; wanted++) {
        nymbl_download_options options = {.sha256 = wanted != 0};
        nymbl_transfer *transfer;
        nymbl_error err;
        text got = {0};
        peer peer;

        world_open(NULL);
        transfer = document_asked(start_download(&options), &peer);
        if (wanted) {
            peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
                            "12345678901234567890");
            peer_close(&peer);
            CHECK(read_all(transfer, &got, &err) == NYMBL_TRUNCATED);
        } else {
            peer_respond(&peer, 200, "", "12345678901234567890");
            CHECK(read_all(transfer, &got, &err) == NYMBL_DONE);
            peer_close(&peer);
        }
        CHECK(nymbl_transfer_sha256(transfer) == NULL);
        nymbl_transfer_free(transfer);
        text_free(&got);
        world_close();
    }
}

static void window_is_bounded_while_nobody_reads(void)
{
    char *data = pattern(5 * MEGABYTE);
    nymbl_transfer *transfer;
    nymbl_response head;
    text got = {0};
    size_t at = 0, size;
    peer peer;

    world_open(NULL);
    transfer = document_asked(start_download(NULL), &peer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 5242880\r\n\r\n");
    for (int quiet = 0; quiet < 50; quiet++) {
        ssize_t sent = peer_send_some(&peer, data + at, 5 * MEGABYTE - at);

        if (sent > 0) {
            at += (size_t)sent;
            quiet = 0;
        }
        nymbl_engine_pump(world.engine, 0.001);
    }
    CHECK(counts_of(transfer).body_received <= 128 * 1024);
    CHECK(counts_of(transfer).body_received >= 64 * 1024);
    /* a response that has arrived must not hide that bytes have, too */
    CHECK(nymbl_transfer_response(transfer, &head, NULL) == NYMBL_OK);
    CHECK(nymbl_transfer_is_ready(transfer));
    while (at < 5 * MEGABYTE) {
        char piece[30000];
        ssize_t sent = peer_send_some(&peer, data + at, 5 * MEGABYTE - at);

        if (sent > 0)
            at += (size_t)sent;
        REQUIRE(nymbl_transfer_read(transfer, piece, sizeof(piece), &size,
                                    NULL) >= 0);
        text_add(&got, piece, size);
        world_step();
    }
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK(got.size == 5 * MEGABYTE && memcmp(got.data, data, got.size) == 0);
    nymbl_transfer_free(transfer);
    text_free(&got);
    free(data);
    peer_close(&peer);
    world_close();
}

/* ---- responses that are not the document ---- */

/* Send a response and close. Both kinds of download must fail alike and leave
 * the path unchanged. */
static void check_bad(const char *response, const nymbl_download_options *given,
                      nymbl_kind kind, const char *reason)
{
    for (int i = 0; i < 2; i++) {
        nymbl_download_options options = {0};
        nymbl_transfer *transfer;
        nymbl_error err = {0};
        text got = {0};
        peer peer;

        world_open(NULL);
        world_write("doc", "old", 3);
        if (given != NULL)
            options = *given;
        if (i == 1)
            options.path = world_path("doc");
        transfer = document_asked(start_download(&options), &peer);
        peer_say(&peer, response);
        peer_close(&peer);
        if (i == 0)
            CHECK_NUMBER(read_all(transfer, &got, &err), kind);
        CHECK_NUMBER(ended(transfer, &err), kind);
        if (!CHECK_TEXT(err.reason, reason))
            printf("for: %s\n", response);
        CHECK(!err.outcome_unknown);
        nymbl_transfer_free(transfer);
        text_free(&got);
        got = world_read("doc");
        CHECK_TEXT(got.data, "old");
        text_free(&got);
        CHECK_NUMBER(world_names(), 1);
        world_close();
    }
}

#define OK_HEAD "HTTP/1.1 200 OK\r\n"

static void missing_bytes_are_detected(void)
{
    check_bad(OK_HEAD "Content-Length: 10\r\n\r\n123456789", NULL,
              NYMBL_TRUNCATED, NULL);
    check_bad(OK_HEAD "Content-Length: 10\r\n\r\n", NULL, NYMBL_TRUNCATED,
              NULL);
    check_bad(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", NULL,
              NYMBL_TRUNCATED, NULL);
    check_bad(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\n123", NULL,
              NYMBL_TRUNCATED, NULL);
    check_bad(OK_HEAD "\r\n0123456789", NULL, NYMBL_TRUNCATED, "no_length");
    check_bad(OK_HEAD "Transfer-Encoding: identity\r\n\r\n0123456789", NULL,
              NYMBL_TRUNCATED, "no_length");
    check_bad(OK_HEAD "Content-Length: x\r\n\r\n0123456789", NULL,
              NYMBL_PROTOCOL, "bad_response");
    check_bad(OK_HEAD "X-Amzn-Remapped-Content-Length: 11\r\n"
                      "Transfer-Encoding: chunked\r\n\r\n"
                      "a\r\n0123456789\r\n0\r\n\r\n",
              NULL, NYMBL_TRUNCATED, NULL);
}

static void excess_bytes_are_detected(void)
{
    nymbl_download_options nine = {.has_size = true, .size = 9};
    nymbl_download_options eleven = {.has_size = true, .size = 11};

    check_bad(OK_HEAD "Content-Length: 10\r\n\r\n0123456789", &nine,
              NYMBL_CORRUPT, "size_mismatch");
    check_bad(OK_HEAD "Content-Length: 10\r\n\r\n0123456789", &eleven,
              NYMBL_CORRUPT, "size_mismatch");
    check_bad(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"
                      "a\r\n0123456789\r\n0\r\n\r\n",
              &nine, NYMBL_CORRUPT, "size_mismatch");
    check_bad(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"
                      "a\r\n0123456789\r\n0\r\n\r\n",
              &eleven, NYMBL_CORRUPT, "size_mismatch");
    check_bad(OK_HEAD "X-Amzn-Remapped-Content-Length: 9\r\n"
                      "Transfer-Encoding: chunked\r\n\r\n"
                      "a\r\n0123456789\r\n0\r\n\r\n",
              NULL, NYMBL_CORRUPT, "size_mismatch");
}

static void bytes_of_another_type_are_detected(void)
{
    nymbl_download_options pdf = {.content_type = "application/pdf"};

    check_bad(OK_HEAD "Content-Length: 8\r\n\r\nJVBERi0x", &pdf, NYMBL_CORRUPT,
              "base64");
    check_bad(OK_HEAD "Content-Type: application/json\r\n"
                      "Content-Length: 2\r\n\r\n{}",
              &pdf, NYMBL_CORRUPT, "type_mismatch");
    check_bad(OK_HEAD "Content-Length: 18\r\n\r\n{\"message\": \"none\"}", &pdf,
              NYMBL_CORRUPT, "type_mismatch");
    check_bad(OK_HEAD "Content-Encoding: gzip\r\n"
                      "Content-Length: 10\r\n\r\n0123456789",
              NULL, NYMBL_CORRUPT, "content_encoding");
    check_bad(OK_HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n"
                      "a\r\n0123456789\r\n0\r\n\r\n",
              NULL, NYMBL_CORRUPT, "transfer_encoding");
    check_bad(OK_HEAD "Transfer-Encoding: gzip\r\n\r\n0123456789", NULL,
              NYMBL_CORRUPT, "transfer_encoding");
    check_bad("HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\n123", NULL,
              NYMBL_HTTP, NULL);
    check_bad("HTTP/1.1 204 None\r\n\r\n", NULL, NYMBL_HTTP, NULL);
    check_bad("HTTP/1.1 404 None\r\nContent-Length: 3\r\n\r\n123", NULL,
              NYMBL_NOT_FOUND, NULL);
}

static void reset_within_the_body_is_not_the_end(void)
{
    nymbl_transfer *transfer;
    nymbl_error err;
    peer peer;

    world_open(NULL);
    transfer = document_asked(start_download(NULL), &peer);
    peer_say(&peer, OK_HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n");
    peer_reset(&peer);
    CHECK(ended(transfer, &err) == NYMBL_NETWORK);
    CHECK_TEXT(err.reason, "reset");
    nymbl_transfer_free(transfer);
    world_close();
}

static void bytes_beyond_the_length_are_not_accepted(void)
{
    nymbl_transfer *transfer;
    text got = {0};
    peer peer;

    world_open(NULL);
    transfer = document_asked(start_download(NULL), &peer);
    peer_say(&peer, OK_HEAD "Content-Length: 10\r\n\r\n0123456789abcdef");
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK_TEXT(got.data, "0123456789");
    AWAIT(sockets_to(world.port) == 0); /* it is not reused */
    nymbl_transfer_free(transfer);
    text_free(&got);
    peer_close(&peer);
    world_close();
}

static void empty_document_is_accepted(void)
{
    nymbl_transfer *transfer;
    text got = {0};
    peer peer;

    world_open(NULL);
    transfer = document_asked(start_download(&(nymbl_download_options){
                                  .path = world_path("doc"), .has_size = true}),
                              &peer);
    peer_respond(&peer, 200, "", "");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    got = world_read("doc");
    CHECK_NUMBER((long long)got.size, 0);
    text_free(&got);
    peer_close(&peer);
    world_close();
}

static void chunked_document_arrives_completely(void)
{
    nymbl_transfer *transfer;
    nymbl_response head;
    size_t size;
    char byte;
    text got = {0};
    peer peer;

    world_open(NULL);
    transfer = document_asked(start_download(NULL), &peer);
    peer_say(&peer, OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"
                            "5;x=\"y\"\r\n01234\r\n1\r\n5\r\n0\r\n"
                            "Content-Length: 99\r\nX: y\r\n\r\n");
    world_settle(); /* it has ended, unread */
    CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN);
    CHECK(nymbl_transfer_read(transfer, &byte, 0, &size, NULL) != NYMBL_DONE);
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK_TEXT(got.data, "012345");
    CHECK(nymbl_transfer_response(transfer, &head, NULL) == NYMBL_OK);
    CHECK_NUMBER(head.content_length, -1);
    nymbl_transfer_free(transfer);
    text_free(&got);
    peer_close(&peer);
    world_close();
}

static void unsuitable_target_is_refused_before_a_request(void)
{
    nymbl_download_options options = {0};
    nymbl_transfer *transfer;
    nymbl_error err;

    world_open(NULL);
    options.path = world.dir;
    CHECK(nymbl_download_start(&transfer, world.engine, world.client, "tok",
                               "7", "9", &options, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "directory");
    world_write("doc", "old", 3);
    options.path = world_path("doc");
    options.no_overwrite = true;
    CHECK(nymbl_download_start(&transfer, world.engine, world.client, "tok",
                               "7", "9", &options, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "exists");
    CHECK(transfer == NULL);
    world_settle();
    CHECK(!peer_waits());
    world_close();
}

static void file_that_appears_during_the_download_is_kept(void)
{
    nymbl_transfer *transfer;
    nymbl_error err;
    text got;
    peer peer;

    world_open(NULL);
    transfer =
        document_asked(start_download(&(nymbl_download_options){
                           .path = world_path("doc"), .no_overwrite = true}),
                       &peer);
    world_write("doc", "theirs", 6);
    peer_respond(&peer, 200, "", "ours");
    CHECK(ended(transfer, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "exists");
    nymbl_transfer_free(transfer);
    got = world_read("doc");
    CHECK_TEXT(got.data, "theirs");
    text_free(&got);
    CHECK_NUMBER(world_names(), 1);
    peer_close(&peer);
    world_close();
}

/* A server that changes a document, but not its entity-tag, must not get its
 * halves joined. `rest`: of the second response, after its entity-tag. */
static nymbl_kind resumed(const char *rest, nymbl_error *err)
{
    nymbl_download_options options = {.path = world_path("doc"),
                                      .content_type = "text/plain",
                                      .resume = true};
    nymbl_kind kind = NYMBL_OK;
    peer peer;

    for (int i = 0; i < 2; i++) {
        nymbl_transfer *transfer =
            document_asked(start_download(&options), &peer);

        peer_say(&peer,
                 i == 0 ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 206 Rest\r\n");
        peer_say(&peer, "ETag: \"one\"\r\n");
        peer_say(&peer, i == 0 ? "Content-Length: 10\r\n\r\n01234" : rest);
        world_settle();
        peer_close(&peer);
        kind = ended(transfer, err);
        nymbl_transfer_free(transfer);
        options.has_size = true;
        options.size = 10;
    }
    return kind;
}

#define RANGE(length, range)                                                   \
    "Content-Length: " length "\r\nContent-Range: bytes " range "\r\n\r\n"

static void partial_file_is_continued_only_by_its_document(void)
{
    nymbl_error err;

    world_open(NULL);
    CHECK(resumed(RANGE("6", "5-10/11") "56789x", &err) == NYMBL_CORRUPT);
    CHECK_TEXT(err.reason, "size_mismatch");
    CHECK(resumed(RANGE("6", "4-9/10") "456789", &err) == NYMBL_PROTOCOL);
    CHECK_TEXT(err.reason, "content_range");
    CHECK(resumed(RANGE("4", "5-8/10") "5678", &err) == NYMBL_PROTOCOL);
    CHECK(resumed(RANGE("4", "5-9/10") "5678", &err) == NYMBL_PROTOCOL);
    CHECK(access(world_path("doc"), F_OK) != 0);
    CHECK(resumed(RANGE("5", "5-9/10") "56789", &err) == NYMBL_OK);
    CHECK(world_file_is("doc", "0123456789", 10));
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(download_by_reading_returns_all_bytes),
        TEST(download_to_a_path_replaces_the_file),
        TEST(digest_is_that_of_the_document),
        TEST(digest_of_a_failed_download_does_not_exist),
        TEST(window_is_bounded_while_nobody_reads),
        TEST(missing_bytes_are_detected),
        TEST(excess_bytes_are_detected),
        TEST(bytes_of_another_type_are_detected),
        TEST(reset_within_the_body_is_not_the_end),
        TEST(bytes_beyond_the_length_are_not_accepted),
        TEST(empty_document_is_accepted),
        TEST(chunked_document_arrives_completely),
        TEST(unsuitable_target_is_refused_before_a_request),
        TEST(file_that_appears_during_the_download_is_kept),
        TEST(partial_file_is_continued_only_by_its_document),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
