/* SPDX-License-Identifier: MIT */
/* Timeouts with the test's clock, connection slots, and caps on everything that
 * a server can make grow. */
#include "peer.h"

#define MEGABYTE (1024 * 1024)

/* Let the engine poll for so long, by its clock, without any bytes. */
static void poll_for(double seconds)
{
    world_settle();
    world.tick = seconds;
    nymbl_engine_pump(world.engine, 0.001);
    world.tick = 0;
}

static void clocked_open(const nymbl_client_options *options)
{
    world_open(options);
    world.fake = true;
    world.now = 1000;
}

static void check_runs(nymbl_transfer *transfer)
{
    CHECK_NUMBER(nymbl_transfer_result(transfer, NULL), NYMBL_AGAIN);
}

static void check_timeout(nymbl_transfer *transfer, const char *reason)
{
    nymbl_error err = {0};

    CHECK_NUMBER(nymbl_transfer_result(transfer, &err), NYMBL_TIMEOUT);
    CHECK_TEXT(err.reason, reason);
    CHECK_NUMBER(sockets_to(world.port), 0);
}

static void finish(nymbl_transfer *transfer, peer *peer)
{
    nymbl_transfer_free(transfer);
    peer_close(peer);
    world_close();
}

/* ---- time ---- */

/* The TLS handshake counts as connecting, too. */
static void connecting_has_its_limit(void)
{
    char url[64];
    nymbl_client_options options = {.base_url = url, .connect_timeout = 3};
    nymbl_client *client;
    nymbl_transfer *transfer;
    nymbl_error err;
    peer peer;

    clocked_open(NULL);
    snprintf(url, sizeof(url), "https://127.0.0.1:%d", world.port);
    options.api_key = "k";
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    REQUIRE(nymbl_delete_start(&transfer, world.engine, client, "tok", "7", "9",
                               NULL) == NYMBL_OK);
    peer_accept(&peer);
    peer_await(&peer, 1);
    poll_for(2.9);
    check_runs(transfer);
    poll_for(0.2);
    check_timeout(transfer, "connect");
    nymbl_transfer_result(transfer, &err);
    CHECK(!err.outcome_unknown);
    CHECK(!counts_of(transfer).sent);
    nymbl_client_free(client);
    finish(transfer, &peer);
}

static void silence_has_its_limit(void)
{
    nymbl_transfer *transfer;
    nymbl_error err;
    peer peer;

    clocked_open(NULL);
    transfer = accept_request(start_delete(), &peer);
    poll_for(29.9);
    check_runs(transfer);
    poll_for(0.2);
    check_timeout(transfer, "stall");
    nymbl_transfer_result(transfer, &err);
    CHECK(err.outcome_unknown); /* the request was sent */
    finish(transfer, &peer);
}

static void silence_limit_can_be_set(void)
{
    nymbl_transfer *transfer;
    peer peer;

    clocked_open(&(nymbl_client_options){.stall_timeout = 500});
    transfer = accept_request(start_download(NULL), &peer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    poll_for(499);
    check_runs(transfer);
    poll_for(2);
    check_timeout(transfer, "stall");
    finish(transfer, &peer);
}

static void buffered_response_has_a_total_limit(void)
{
    nymbl_transfer *transfer;
    peer peer;

    clocked_open(NULL);
    transfer = accept_request(start_get(), &peer);
    poll_for(25);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    poll_for(25);
    peer_say(&peer, "{");
    poll_for(9);
    check_runs(transfer);
    peer_say(&peer, "}");
    poll_for(2);
    check_timeout(transfer, "response");
    finish(transfer, &peer);
}

static void download_may_take_long(void)
{
    nymbl_transfer *transfer;
    text got = {0};
    peer peer;

    clocked_open(NULL);
    transfer = accept_request(start_download(NULL), &peer);
    poll_for(25);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    for (int i = 0; i < 10; i++) {
        poll_for(29);
        check_runs(transfer);
        peer_say(&peer, "x");
    }
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK_TEXT(got.data, "xxxxxxxxxx");
    text_free(&got);
    finish(transfer, &peer);
}

static void response_in_the_socket_buffer_counts(void)
{
    static const char response[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    nymbl_transfer *transfer;
    peer peer;

    clocked_open(NULL);
    transfer = accept_request(start_get(), &peer);
    world_settle();
    CHECK(peer_send_some(&peer, response, strlen(response)) == 40);
    world.tick = 1000;
    nymbl_engine_pump(world.engine, 0.001);
    world.tick = 0;
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    finish(transfer, &peer);
}

static void time_outside_the_pump_is_not_charged(void)
{
    nymbl_transfer *transfer;
    peer peer;

    clocked_open(NULL);
    transfer = accept_request(start_get(), &peer);
    for (int i = 0; i < 5; i++) {
        world.now += 100000;
        world_settle();
        check_runs(transfer);
    }
    peer_respond(&peer, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    finish(transfer, &peer);
}

static void response_to_an_upload_may_begin_late(void)
{
    nymbl_transfer *transfer;
    nymbl_body *body;
    nymbl_error err;
    peer peer;

    clocked_open(NULL);
    body = body_of("123", 3);
    transfer = accept_request(start_upload(body), &peer);
    poll_for(119);
    check_runs(transfer);
    poll_for(2);
    check_timeout(transfer, "stall");
    nymbl_transfer_result(transfer, &err);
    CHECK(err.outcome_unknown);
    nymbl_body_free(body);
    finish(transfer, &peer);
}

static void response_to_an_upload_has_a_limit_once_it_has_begun(void)
{
    nymbl_transfer *transfer;
    nymbl_body *body;
    peer peer;

    clocked_open(NULL);
    body = body_of("123", 3);
    transfer = accept_request(start_upload(body), &peer);
    poll_for(100);
    peer_say(&peer, "HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n");
    poll_for(25);
    check_runs(transfer);
    peer_say(&peer, "{");
    poll_for(25);
    check_runs(transfer);
    peer_say(&peer, " ");
    poll_for(20);
    check_timeout(transfer, "response");
    nymbl_body_free(body);
    finish(transfer, &peer);
}

/* A stream for which the server has sent "100 Continue". */
static nymbl_transfer *continued(nymbl_body **body, int64_t size, peer *peer)
{
    nymbl_transfer *transfer;
    request request;

    REQUIRE(nymbl_body_stream(body, size, NULL) == NYMBL_OK);
    transfer = start_upload(*body);
    peer_accept(peer);
    peer_read_head(peer, &request);
    peer_say(peer, "HTTP/1.1 100 Continue\r\n\r\n");
    request_free(&request);
    return transfer;
}

static void sending_may_take_long_after_100_continue(void)
{
    char *data = pattern(4 * MEGABYTE);
    nymbl_transfer *transfer;
    nymbl_body *body;
    size_t taken;
    peer peer;

    clocked_open(NULL);
    transfer = continued(&body, 4 * MEGABYTE, &peer);
    for (size_t at = 0; at < 4 * MEGABYTE; at += taken) {
        size_t room = nymbl_body_room(body);
        size_t left = 4 * MEGABYTE - at;

        nymbl_body_write(body, data + at, left < room ? left : room, &taken);
        poll_for(at % MEGABYTE == 0 ? 20 : 1); /* as on a slow line */
        while (peer_take(&peer))
            ;
        if (!CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN))
            break;
    }
    nymbl_body_free(body);
    free(data);
    finish(transfer, &peer);
}

static void response_may_begin_late_after_100_continue(void)
{
    nymbl_transfer *transfer;
    nymbl_body *body;
    size_t taken;
    peer peer;

    clocked_open(NULL);
    transfer = continued(&body, 3, &peer);
    nymbl_body_write(body, "123", 3, &taken);
    nymbl_body_finish(body);
    poll_for(100);
    check_runs(transfer);
    poll_for(21);
    check_timeout(transfer, "stall");
    nymbl_body_free(body);
    finish(transfer, &peer);
}

static void paused_stream_is_never_charged(void)
{
    char *data = pattern(5 * MEGABYTE);
    nymbl_transfer *transfer;
    text got = {0};
    peer peer;
    size_t at = 0;
    ssize_t sent = 1;

    clocked_open(NULL);
    transfer = accept_request(start_download(NULL), &peer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
    while (at < 300000 && sent > 0) {
        sent = peer_send_some(&peer, data + at, 300000 - at);
        if (sent > 0)
            at += (size_t)sent;
        world_settle();
    }
    for (int i = 0; i < 5; i++) {
        poll_for(10000);
        check_runs(transfer);
    }
    CHECK(counts_of(transfer).body_received <= 128 * 1024);
    if (at < 300000)
        peer_send(&peer, data + at, 300000 - at);
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK(got.size == 300000 && memcmp(got.data, data, 300000) == 0);
    text_free(&got);
    free(data);
    finish(transfer, &peer);
}

static void upload_that_waits_for_its_source_is_never_charged(void)
{
    nymbl_transfer *transfer;
    nymbl_body *body;
    size_t taken;
    peer peer;

    clocked_open(NULL);
    transfer = continued(&body, 3, &peer);
    poll_for(1);
    poll_for(10000);
    check_runs(transfer);
    nymbl_body_write(body, "123", 3, &taken);
    nymbl_body_finish(body);
    poll_for(1);
    peer_respond(&peer, 201, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_body_free(body);
    finish(transfer, &peer);
}

/* ---- connection slots ---- */

static void client_uses_only_its_slots(void)
{
    nymbl_transfer *transfers[5];
    peer peers[5];
    int open = 0, answered = 0, queued;

    clocked_open(&(nymbl_client_options){.max_connections = 2});
    for (int i = 0; i < 5; i++)
        transfers[i] = start_get();
    while (answered < 5) {
        request request;

        world_settle();
        while (peer_waits())
            peer_accept(&peers[open++]);
        REQUIRE(open > answered);
        CHECK(open - answered <= 2);
        CHECK(sockets_to(world.port) <= 2);
        queued = 0;
        for (int i = 0; i < 5; i++)
            queued += nymbl_transfer_is_queued(transfers[i]);
        CHECK_NUMBER(queued, 5 - open);
        CHECK(open == 5 || nymbl_transfer_is_ready(transfers[4]));
        poll_for(9); /* waiting transfers are not charged */
        peer_read(&peers[answered], &request);
        request_free(&request);
        peer_respond(&peers[answered], 200, "Connection: close\r\n", "{}");
        world_settle();
        peer_close(&peers[answered++]);
    }
    for (int i = 0; i < 5; i++) {
        CHECK(ended(transfers[i], NULL) == NYMBL_OK);
        nymbl_transfer_free(transfers[i]);
    }
    CHECK_NUMBER(open, 5);
    world_close();
}

static void paused_stream_occupies_no_slot(void)
{
    char *data = pattern(MEGABYTE);
    nymbl_transfer *streams[2], *third;
    text got[2] = {{0}, {0}};
    peer peers[3];
    size_t at[2] = {0, 0};

    world_open(&(nymbl_client_options){.max_connections = 2});
    for (int i = 0; i < 2; i++) {
        streams[i] = accept_request(start_download(NULL), &peers[i]);
        peer_say(&peers[i], "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n"
                            "\r\n");
    }
    third = start_get();
    world_settle();
    CHECK(!peer_waits());
    for (int i = 0; i < 2; i++) {
        for (int quiet = 0; quiet < 5 && at[i] < MEGABYTE; quiet++) {
            ssize_t sent =
                peer_send_some(&peers[i], data + at[i], MEGABYTE - at[i]);

            if (sent > 0)
                at[i] += (size_t)sent;
            world_settle();
        }
    }
    accept_request(third, &peers[2]);
    peer_respond(&peers[2], 200, "", "{}");
    CHECK(ended(third, NULL) == NYMBL_OK);
    for (int i = 0; i < 2; i++) {
        nymbl_kind kind = NYMBL_OK;
        char piece[4096];
        size_t size;

        while (at[i] < MEGABYTE) { /* the rest, while it is read */
            ssize_t sent =
                peer_send_some(&peers[i], data + at[i], MEGABYTE - at[i]);

            if (sent > 0)
                at[i] += (size_t)sent;
            kind = nymbl_transfer_read(streams[i], piece, sizeof(piece), &size,
                                       NULL);
            REQUIRE(kind >= 0);
            text_add(&got[i], piece, size);
            world_step();
        }
        CHECK(read_all(streams[i], &got[i], NULL) == NYMBL_DONE);
        CHECK(got[i].size == MEGABYTE &&
              memcmp(got[i].data, data, MEGABYTE) == 0);
        text_free(&got[i]);
        nymbl_transfer_free(streams[i]);
        peer_close(&peers[i]);
    }
    nymbl_transfer_free(third);
    peer_close(&peers[2]);
    free(data);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(connecting_has_its_limit),
        TEST(silence_has_its_limit),
        TEST(silence_limit_can_be_set),
        TEST(buffered_response_has_a_total_limit),
        TEST(download_may_take_long),
        TEST(response_in_the_socket_buffer_counts),
        TEST(time_outside_the_pump_is_not_charged),
        TEST(response_to_an_upload_may_begin_late),
        TEST(response_to_an_upload_has_a_limit_once_it_has_begun),
        TEST(sending_may_take_long_after_100_continue),
        TEST(response_may_begin_late_after_100_continue),
        TEST(paused_stream_is_never_charged),
        TEST(upload_that_waits_for_its_source_is_never_charged),
        TEST(client_uses_only_its_slots),
        TEST(paused_stream_occupies_no_slot),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
