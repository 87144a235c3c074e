/* SPDX-License-Identifier: MIT */
/* Uploads and deletes are sent once, and an upload that was aborted is known
 * not to have happened. */
#include "peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* Leave an idle connection behind. */
static void connection_warm(peer *peer)
{
    nymbl_transfer *transfer = start_get();
    request request;

    peer_accept(peer);
    peer_read(peer, &request);
    peer_respond(peer, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    request_free(&request);
}

/* Accept the connection that an upload opens although an idle one exists:
 * nothing is sent over the idle one. */
static void upload_accept(peer *peer)
{
    struct peer old = *peer;

    peer_accept(peer);
    CHECK(!peer_take(&old));
    CHECK_NUMBER((long long)old.in.size, 0);
    peer_close(&old);
}

/* Accept the connection for libcurl's second try; nothing may be sent over it.
 */
static void second_try_is_silent(void)
{
    peer peer;

    world_settle();
    while (peer_waits()) {
        peer_accept(&peer);
        for (int i = 0; i < 20 && !peer.eof; i++) {
            peer_take(&peer);
            world_settle();
        }
        CHECK_NUMBER((long long)peer.in.size, 0);
        peer_close(&peer);
    }
}

/* Read a request of which nothing is checked. */
static void peer_take_request(peer *peer)
{
    request request;

    peer_read(peer, &request);
    CHECK(!request.cut);
    request_free(&request);
}

/* Start an upload on a new connection, whose peer gets all of it. */
static nymbl_transfer *upload_sent(nymbl_body **body, peer *peer)
{
    nymbl_transfer *transfer;

    world_open(NULL);
    *body = body_of("0123456789", 10);
    transfer = start_upload(*body);
    peer_accept(peer);
    peer_take_request(peer);
    return transfer;
}

/* Start a delete on a connection that was used before, and whose peer gets all
 * of it. */
static nymbl_transfer *delete_sent(peer *peer)
{
    nymbl_transfer *transfer;

    world_open(NULL);
    connection_warm(peer);
    transfer = start_delete();
    peer_take_request(peer);
    return transfer;
}

/* Check that a transfer whose connection broke is not repeated. */
static void check_unknown(nymbl_transfer *transfer)
{
    nymbl_error err;

    CHECK_NUMBER(ended(transfer, &err), NYMBL_NETWORK);
    CHECK_TEXT(err.reason, "reset");
    CHECK_NUMBER(err.status, 0);
    CHECK(err.outcome_unknown);
    second_try_is_silent();
}

static void check_canceled(nymbl_transfer *transfer)
{
    nymbl_error err;

    CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN);
    nymbl_transfer_cancel(transfer, NYMBL_CANCELED, NULL);
    CHECK(nymbl_transfer_result(transfer, &err) == NYMBL_CANCELED);
    CHECK(err.outcome_unknown);
}

static void broken_connection_causes_no_second_post(void)
{
    char *data = pattern(3000);
    nymbl_body *body;
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    connection_warm(&peer);
    body = body_of(data, 3000);
    transfer = start_upload(body);
    upload_accept(&peer);
    peer_read(&peer, &request);
    CHECK(request_begins(&request, "POST "));
    CHECK(!request.cut);
    peer_close(&peer);
    check_unknown(transfer);
    CHECK(counts_of(transfer).sent);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    request_free(&request);
    free(data);
    world_close();
}

static void broken_connection_causes_no_second_post_of_a_path(void)
{
    nymbl_body *body;
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    connection_warm(&peer);
    world_write("up", "some bytes", 10);
    REQUIRE(nymbl_body_from_path(&body, world_path("up"), NULL) == NYMBL_OK);
    transfer = start_upload(body);
    upload_accept(&peer);
    peer_read(&peer, &request);
    peer_close(&peer);
    check_unknown(transfer);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    request_free(&request);
    world_close();
}

static void broken_connection_causes_no_second_post_of_a_stream(void)
{
    nymbl_body *body;
    nymbl_transfer *transfer;
    nymbl_error err;
    request request;
    size_t taken;
    peer peer;

    world_open(NULL);
    connection_warm(&peer);
    REQUIRE(nymbl_body_stream(&body, 5, NULL) == NYMBL_OK);
    transfer = start_upload(body);
    CHECK(nymbl_body_write(body, "12345", 5, &taken) == NYMBL_OK);
    nymbl_body_finish(body);
    upload_accept(&peer);
    peer_read_head(&peer, &request);
    CHECK_TEXT(request_field(&request, "Expect"), "100-continue");
    peer_say(&peer, "HTTP/1.1 100 Continue\r\n\r\n");
    CHECK(peer_await(
        &peer, strtoul(request_field(&request, "Content-Length"), NULL, 10)));
    peer_close(&peer);
    CHECK(ended(transfer, &err) == NYMBL_NETWORK);
    CHECK(err.outcome_unknown);
    second_try_is_silent();
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    request_free(&request);
    world_close();
}

static void broken_connection_causes_no_second_delete(void)
{
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    connection_warm(&peer);
    transfer = start_delete();
    peer_read(&peer, &request);
    CHECK(request_begins(&request, "DELETE /v1/Patients(7)/Documents(9) "));
    peer_close(&peer);
    check_unknown(transfer);
    nymbl_transfer_free(transfer);
    request_free(&request);
    world_close();
}

static void reset_connection_causes_no_second_delete(void)
{
    nymbl_transfer *transfer;
    peer peer;

    transfer = delete_sent(&peer);
    peer_reset(&peer);
    check_unknown(transfer);
    nymbl_transfer_free(transfer);
    world_close();
}

/* The server has closed the connection before: then nothing was sent, or it was
 * sent once. */
static void closed_connection_is_not_reused(void)
{
    nymbl_transfer *transfer;
    request request;
    peer old, fresh;

    world_open(NULL);
    connection_warm(&old);
    peer_close(&old);
    usleep(1000);
    transfer = start_delete();
    peer_accept(&fresh);
    peer_read(&fresh, &request);
    peer_respond(&fresh, 204, "", "");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    second_try_is_silent();
    peer_close(&fresh);
    nymbl_transfer_free(transfer);
    request_free(&request);
    world_close();
}

/* Make the listener refuse further connections. */
static void listener_fill(int fds[4])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)world.port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(listen(world.listener, 0) == 0);
    for (int i = 0; i < 4; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        connect(fds[i], (struct sockaddr *)&address, sizeof(address));
    }
}

/* The peer may have the complete request. */
static void canceling_after_the_last_byte_is_unknown(void)
{
    char *data = pattern(3000);
    nymbl_body *body;
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    connection_warm(&peer);
    body = body_of(data, 3000);
    transfer = start_upload(body);
    upload_accept(&peer);
    peer_read(&peer, &request);
    world_settle();
    check_canceled(transfer);
    CHECK_NUMBER(counts_of(transfer).body_sent, 3000);
    peer_close(&peer);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    request_free(&request);
    free(data);
    world_close();
}

/* The caller may cancel between libcurl's second try of a delete and our
 * refusal of it: the first try may have been carried out. */
static void canceling_during_the_second_try_is_unknown(void)
{
    nymbl_transfer *transfer;
    peer peer;
    int fds[4];

    transfer = delete_sent(&peer);
    listener_fill(fds);
    peer_close(&peer);
    world_settle();
    check_canceled(transfer);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    nymbl_transfer_free(transfer);
    world_close();
}

/* An upload on a new connection whose response never arrives is not sent again.
 */
static void lost_response_is_unknown(void)
{
    nymbl_body *body;
    nymbl_transfer *transfer;
    peer peer;

    transfer = upload_sent(&body, &peer);
    peer_close(&peer);
    check_unknown(transfer);
    CHECK(nymbl_body_can_rewind(body)); /* rewinding is the caller's decision */
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    world_close();
}

static void response_that_breaks_off_is_unknown(void)
{
    nymbl_body *body;
    nymbl_transfer *transfer;
    nymbl_error err;
    peer peer;

    transfer = upload_sent(&body, &peer);
    peer_say(&peer, "HTTP/1.1 201 Created\r\nContent-Length: 50\r\n\r\n{\"i");
    peer_close(&peer);
    CHECK(ended(transfer, &err) == NYMBL_TRUNCATED);
    CHECK_NUMBER(err.status, 201);
    CHECK(err.outcome_unknown);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    world_close();
}

static void refused_connection_is_not_unknown(void)
{
    nymbl_body *body;
    nymbl_transfer *transfer;
    nymbl_error err;

    world_open(NULL);
    close(world.listener);
    world.listener = -1;
    body = body_of("0123456789", 10);
    transfer = start_upload(body);
    CHECK(ended(transfer, &err) == NYMBL_NETWORK);
    CHECK_TEXT(err.reason, "connect");
    CHECK(!err.outcome_unknown);
    CHECK(!counts_of(transfer).sent);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    world_close();
}

static void statuses_decide_whether_the_outcome_is_unknown(void)
{
    static const struct {
        int status;
        nymbl_kind kind;
        bool unknown;
    } cases[] = {
        {400, NYMBL_BAD_REQUEST, false}, {401, NYMBL_UNAUTHORIZED, false},
        {403, NYMBL_FORBIDDEN, false},   {404, NYMBL_NOT_FOUND, false},
        {413, NYMBL_TOO_LARGE, false},   {415, NYMBL_UNSUPPORTED_TYPE, false},
        {429, NYMBL_THROTTLED, false},   {418, NYMBL_HTTP, false},
        {302, NYMBL_REDIRECT, false},    {500, NYMBL_SERVER, true},
        {503, NYMBL_SERVER, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        nymbl_body *body;
        nymbl_transfer *transfer;
        nymbl_error err;
        peer peer;
        size_t size;

        transfer = upload_sent(&body, &peer);
        peer_respond(&peer, cases[i].status,
                     "Location: /elsewhere\r\nRetry-After: 7\r\n", "{\"e\":1}");
        CHECK_NUMBER(ended(transfer, &err), cases[i].kind);
        CHECK_NUMBER(err.kind, cases[i].kind);
        CHECK_NUMBER(err.status, cases[i].status);
        CHECK(err.outcome_unknown == cases[i].unknown);
        CHECK(err.retry_after == 7);
        CHECK_TEXT(nymbl_transfer_body(transfer, &size), "{\"e\":1}");
        second_try_is_silent();
        peer_close(&peer);
        nymbl_transfer_free(transfer);
        nymbl_body_free(body);
        world_close();
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(broken_connection_causes_no_second_post),
        TEST(broken_connection_causes_no_second_post_of_a_path),
        TEST(broken_connection_causes_no_second_post_of_a_stream),
        TEST(broken_connection_causes_no_second_delete),
        TEST(reset_connection_causes_no_second_delete),
        TEST(closed_connection_is_not_reused),
        TEST(canceling_after_the_last_byte_is_unknown),
        TEST(canceling_during_the_second_try_is_unknown),
        TEST(lost_response_is_unknown),
        TEST(response_that_breaks_off_is_unknown),
        TEST(refused_connection_is_not_unknown),
        TEST(statuses_decide_whether_the_outcome_is_unknown),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
