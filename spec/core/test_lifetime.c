/* SPDX-License-Identifier: MIT */
/* Canceling, closing, releasing in any order, and forking. */
#include "peer.h"

#include <sys/wait.h>

#define MEGABYTE (1024 * 1024)

static void check_canceled(nymbl_transfer *transfer, bool unknown)
{
    nymbl_error err = {0};

    nymbl_transfer_cancel(transfer, NYMBL_CANCELED, "word");
    CHECK(nymbl_transfer_is_ready(transfer));
    CHECK_NUMBER(nymbl_transfer_result(transfer, &err), NYMBL_CANCELED);
    CHECK_TEXT(err.reason, "word");
    CHECK(err.outcome_unknown == unknown);
    CHECK_NUMBER(sockets_to(world.port), 0); /* at once, without pumping */
    nymbl_transfer_cancel(transfer, NYMBL_TIMEOUT, "other");
    nymbl_transfer_result(transfer, &err);
    CHECK_TEXT(err.reason, "word"); /* the first reason stays */
    nymbl_transfer_free(transfer);
}

static void check_end_seen(peer *peer)
{
    for (int i = 0; i < 1000 && !peer->eof; i++) {
        peer_take(peer);
        usleep(100);
    }
    CHECK(peer->eof);
    peer_close(peer);
}

static void canceling_before_the_first_pump_opens_nothing(void)
{
    world_open(NULL);
    check_canceled(start_delete(), false);
    world_settle();
    CHECK(!peer_waits());
    world_close();
}

static void canceling_closes_a_new_connection(void)
{
    char url[64];
    nymbl_client_options options = {.base_url = url, .api_key = "k"};
    nymbl_transfer *transfer;
    nymbl_client *client;
    peer peer;

    world_open(NULL); /* a TLS handshake that does not finish */
    snprintf(url, sizeof(url), "https://127.0.0.1:%d", world.port);
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    REQUIRE(nymbl_delete_start(&transfer, world.engine, client, "tok", "7", "9",
                               NULL) == NYMBL_OK);
    nymbl_engine_pump(world.engine, 0); /* connecting */
    nymbl_transfer_cancel(transfer, NYMBL_CANCELED, NULL);
    CHECK_NUMBER(sockets_to(world.port), 0);
    nymbl_transfer_free(transfer);
    while (peer_waits()) {
        peer_accept(&peer);
        check_end_seen(&peer);
    }
    REQUIRE(nymbl_delete_start(&transfer, world.engine, client, "tok", "7", "9",
                               NULL) == NYMBL_OK);
    peer_accept(&peer);
    peer_await(&peer, 10);
    check_canceled(transfer, false);
    check_end_seen(&peer);
    nymbl_client_free(client);
    world_close();
}

static void canceling_closes_an_exchange_at_any_moment(void)
{
    static const char *const said[] = {
        "", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n123"};
    size_t moments = sizeof(said) / sizeof(said[0]);

    for (size_t i = 0; i < 3 * moments; i++) {
        nymbl_transfer *transfer;
        request request;
        peer peer;

        world_open(NULL);
        transfer = i < moments       ? start_delete()
                   : i < 2 * moments ? start_get()
                                     : start_download(&(nymbl_download_options){
                                           .path = world_path("doc")});
        peer_accept(&peer);
        peer_read(&peer, &request);
        peer_say(&peer, said[i % moments]);
        world_settle();
        check_canceled(transfer, i < moments); /* the delete was sent */
        CHECK_NUMBER(world_names(), 0);
        check_end_seen(&peer);
        request_free(&request);
        world_close();
    }
}

static void canceling_an_upload_is_unknown_once_all_was_sent(void)
{
    char *data = pattern(8 * MEGABYTE);

    for (int i = 0; i < 2; i++) {
        size_t size = i == 0 ? 8 * MEGABYTE : 1000;
        nymbl_transfer *transfer;
        nymbl_body *body;
        peer peer;

        world_open(NULL);
        body = body_of(data, size);
        transfer = start_upload(body);
        nymbl_body_free(body);
        peer_accept(&peer);
        peer_await(&peer, 500);
        world_settle();
        check_canceled(transfer, i == 1);
        check_end_seen(&peer);
        world_close();
    }
    free(data);
}

static void canceling_a_paused_stream_closes_it(void)
{
    char *data = pattern(MEGABYTE);
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    transfer = start_download(NULL);
    peer_accept(&peer);
    peer_read(&peer, &request);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
    for (int i = 0; i < 5; i++) {
        peer_send_some(&peer, data, MEGABYTE);
        world_settle();
    }
    check_canceled(transfer, false);
    request_free(&request);
    peer_close(&peer);
    free(data);
    world_close();
}

static void freeing_a_transfer_cancels_it(void)
{
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    transfer =
        start_download(&(nymbl_download_options){.path = world_path("doc")});
    peer_accept(&peer);
    peer_read(&peer, &request);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n123");
    world_settle();
    CHECK_NUMBER(world_files(), 1);
    nymbl_transfer_free(transfer);
    CHECK_NUMBER(world_files(), 0);
    CHECK_NUMBER(sockets_to(world.port), 0);
    CHECK_NUMBER(world_names(), 0);
    CHECK_NUMBER(nymbl_object_count(), 1); /* the client */
    check_end_seen(&peer);
    request_free(&request);
    world_close();
}

/* ---- closing and releasing ---- */

/* One running transfer, one waiting for a slot, one not yet started. */
static void three_start(nymbl_transfer *transfers[3], peer *peer)
{
    request request;

    transfers[0] = start_delete();
    peer_accept(peer);
    peer_read(peer, &request);
    request_free(&request);
    transfers[1] = start_get();
    world_settle();
    transfers[2] = start_get();
}

static void three_ended(nymbl_transfer *transfers[3], const char *reason)
{
    for (int i = 0; i < 3; i++) {
        nymbl_error err = {0};

        CHECK_NUMBER(nymbl_transfer_result(transfers[i], &err), NYMBL_CANCELED);
        CHECK_TEXT(err.reason, reason);
        CHECK(err.outcome_unknown == (i == 0));
        CHECK(nymbl_transfer_wait(transfers[i], 100) == NYMBL_OK);
        nymbl_transfer_free(transfers[i]);
    }
}

static void closing_a_client_ends_its_transfers(void)
{
    nymbl_transfer *transfers[3], *none;
    nymbl_error err;
    peer peer;

    world_open(&(nymbl_client_options){.max_connections = 1});
    three_start(transfers, &peer);
    nymbl_client_close(world.client);
    CHECK_NUMBER(sockets_to(world.port), 0);
    check_end_seen(&peer);
    three_ended(transfers, "closed");
    nymbl_client_close(world.client);
    CHECK(nymbl_get_start(&none, world.engine, world.client, "tok", "7", "9",
                          &err) == NYMBL_MISUSE);
    CHECK_TEXT(err.reason, "client");
    CHECK(none == NULL);
    world_close();
}

static void closing_a_client_leaves_others_alone(void)
{
    nymbl_client_options options = {.api_key = "other", .allow_http = true};
    nymbl_transfer *mine, *theirs;
    nymbl_client *client;
    request request;
    char url[64];
    peer one, other;

    world_open(NULL);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", world.port);
    options.base_url = url;
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    mine = start_get();
    peer_accept(&one);
    peer_read(&one, &request);
    request_free(&request);
    REQUIRE(nymbl_get_start(&theirs, world.engine, client, "tok", "7", "9",
                            NULL) == NYMBL_OK);
    peer_accept(&other);
    peer_read(&other, &request);
    request_free(&request);
    nymbl_client_close(client);
    nymbl_client_free(client);
    CHECK(nymbl_transfer_result(theirs, NULL) == NYMBL_CANCELED);
    peer_respond(&one, 200, "", "{}");
    CHECK(ended(mine, NULL) == NYMBL_OK);
    nymbl_transfer_free(mine);
    nymbl_transfer_free(theirs);
    peer_close(&one);
    peer_close(&other);
    world_close();
}

static void closing_the_last_client_closes_idle_connections(void)
{
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    transfer = start_get();
    peer_accept(&peer);
    peer_read(&peer, &request);
    peer_respond(&peer, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    CHECK_NUMBER(sockets_to(world.port), 1);
    nymbl_client_close(world.client);
    CHECK_NUMBER(sockets_to(world.port), 0);
    request_free(&request);
    peer_close(&peer);
    world_close();
}

static void engine_may_be_freed_before_its_transfers(void)
{
    nymbl_transfer *transfers[3];
    peer peer;

    world_open(&(nymbl_client_options){.max_connections = 1});
    three_start(transfers, &peer);
    nymbl_engine_free(world.engine);
    world.engine = NULL;
    CHECK_NUMBER(sockets_to(world.port), 0);
    check_end_seen(&peer);
    three_ended(transfers, "closed");
    nymbl_client_close(world.client);
    world_close();
}

static void client_may_be_freed_before_its_transfers(void)
{
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    transfer = start_get();
    nymbl_client_free(world.client);
    world.client = NULL;
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK_TEXT(request_field(&request, "x-api-key"), "key-of-test");
    peer_respond(&peer, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    request_free(&request);
    peer_close(&peer);
    world_close();
}

/* A client that has moved to another engine still has transfers here. */
static void client_on_two_engines_keeps_both(void)
{
    nymbl_transfer *here, *there, *theirs;
    nymbl_client_options options = {.api_key = "o", .allow_http = true};
    nymbl_engine *second;
    nymbl_client *other;
    request request;
    char url[64];
    peer peers[2];

    world_open(NULL);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", world.port);
    options.base_url = url;
    REQUIRE(nymbl_client_new(&other, &options, NULL) == NYMBL_OK);
    REQUIRE(nymbl_engine_new(&second, NULL, NULL) == NYMBL_OK);
    REQUIRE(nymbl_get_start(&theirs, world.engine, other, "t", "1", "2",
                            NULL) == NYMBL_OK);
    here = start_get();
    peer_accept(&peers[0]);
    peer_accept(&peers[1]);
    for (int i = 0; i < 2; i++) {
        peer_read(&peers[i], &request);
        request_free(&request);
    }
    REQUIRE(nymbl_get_start(&there, second, world.client, "t", "1", "2",
                            NULL) == NYMBL_OK);
    nymbl_client_close(other); /* the first engine's last client */
    for (int i = 0; i < 2; i++) {
        peer_respond(&peers[i], 200, "", "{}");
        peer_close(&peers[i]);
    }
    CHECK_NUMBER(ended(here, NULL), NYMBL_OK);
    nymbl_transfer_free(here);
    nymbl_transfer_free(there);
    nymbl_transfer_free(theirs);
    nymbl_client_free(other);
    nymbl_engine_free(second);
    world_close();
}

/* The client is closed on its newer engine, but its transfers on the older one
 * must still use its proxy. */
static void client_on_two_engines_keeps_its_proxy(void)
{
    nymbl_client_options options = {.base_url = "https://127.0.0.1:9",
                                    .max_connections = 1};
    nymbl_transfer *first, *waiting, *there;
    nymbl_engine *second;
    char proxy[64];
    int port, listener = listener_open(&port, 8);
    peer peer;

    snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%d", port);
    options.proxy = proxy;
    world_open(&options);
    REQUIRE(nymbl_engine_new(&second, NULL, NULL) == NYMBL_OK);
    first = start_get();
    peer_accept_at(&peer, listener);
    waiting = start_get();
    world_settle();
    REQUIRE(nymbl_get_start(&there, second, world.client, "t", "1", "2",
                            NULL) == NYMBL_OK);
    nymbl_client_close(world.client);
    peer_close(&peer);
    CHECK_NUMBER(ended(first, NULL), NYMBL_NETWORK);
    peer_accept_at(&peer, listener);
    peer_close(&peer);
    CHECK_NUMBER(ended(waiting, NULL), NYMBL_NETWORK);
    nymbl_transfer_free(first);
    nymbl_transfer_free(waiting);
    nymbl_transfer_free(there);
    nymbl_engine_free(second);
    world_close();
    close(listener);
}

/* ---- outcomes ---- */

/* Its source has finished, but the last chunk was not sent. */
static void upload_without_its_last_chunk_did_not_happen(void)
{
    size_t size = 1024 * 1024, taken;
    char *data = pattern(size);
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    nymbl_body *body;
    request request;
    peer peer;

    world_open(NULL);
    REQUIRE(nymbl_body_stream(&body, -1, NULL) == NYMBL_OK);
    CHECK(nymbl_body_write(body, data, size, &taken) == NYMBL_OK);
    transfer = start_upload(body);
    peer_accept(&peer);
    peer_read_head(&peer, &request);
    request_free(&request);
    peer_say(&peer, "HTTP/1.1 100 Continue\r\n\r\n");
    CHECK(peer_await(&peer, size));
    CHECK_NUMBER(nymbl_body_room(body), size);
    nymbl_body_finish(body);
    nymbl_transfer_cancel(transfer, NYMBL_CANCELED, NULL);
    CHECK_NUMBER(ended(transfer, &err), NYMBL_CANCELED);
    CHECK(!err.outcome_unknown);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    peer_close(&peer);
    free(data);
    world_close();
}

/* ---- fork ---- */

static void child_that_releases_all_leaves_the_parent_alone(void)
{
    nymbl_transfer *stream, *saved;
    request request;
    text got = {0};
    peer one, two;
    int status;
    pid_t child;

    world_open(NULL);
    stream = start_download(NULL);
    peer_accept(&one);
    peer_read(&one, &request);
    request_free(&request);
    saved =
        start_download(&(nymbl_download_options){.path = world_path("doc")});
    peer_accept(&two);
    peer_read(&two, &request);
    request_free(&request);
    peer_say(&one, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    peer_say(&two, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
    world_settle();
    CHECK(nymbl_transfer_result(stream, NULL) == NYMBL_AGAIN);
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        nymbl_notify_socket notify;
        nymbl_error err = {0};
        int fd;
        bool good =
            nymbl_engine_pump(world.engine, 0) == NYMBL_MISUSE &&
            !nymbl_engine_in_this_process(world.engine) &&
            nymbl_engine_start_thread(world.engine, NULL) == NYMBL_MISUSE &&
            nymbl_transfer_is_ready(saved) &&
            nymbl_transfer_notify_socket(saved, &notify, NULL) ==
                NYMBL_CANCELED &&
            nymbl_transfer_notify_fd(saved, &fd, &err) == NYMBL_CANCELED &&
            strcmp(err.reason, "forked") == 0 &&
            nymbl_get_start(&(nymbl_transfer *){NULL}, world.engine,
                            world.client, "t", "1", "2",
                            NULL) == NYMBL_MISUSE &&
            nymbl_transfer_wait(stream, 1) == NYMBL_MISUSE;

        nymbl_transfer_wake_at(stream, 1);
        nymbl_transfer_set_watchdog(stream, 1);
        nymbl_transfer_cancel(stream, NYMBL_CANCELED, NULL);
        nymbl_transfer_free(stream);
        nymbl_transfer_free(saved);
        nymbl_client_close(world.client);
        nymbl_client_free(world.client);
        nymbl_engine_free(world.engine);
        _exit(good ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_NUMBER(world_files(), 1); /* of the running download */
    peer_say(&one, "56789");
    peer_say(&two, "56789");
    CHECK(read_all(stream, &got, NULL) == NYMBL_DONE);
    CHECK_TEXT(got.data, "0123456789");
    CHECK(ended(saved, NULL) == NYMBL_OK);
    nymbl_transfer_free(stream);
    nymbl_transfer_free(saved);
    text_free(&got);
    got = world_read("doc");
    CHECK_TEXT(got.data, "0123456789");
    text_free(&got);
    peer_close(&one);
    peer_close(&two);
    world_close();
}

static void child_can_have_its_own_engine(void)
{
    nymbl_transfer *transfer;
    int status;
    pid_t child;
    request request;
    peer peer;

    world_open(NULL);
    transfer = start_get();
    peer_accept(&peer);
    peer_read(&peer, &request);
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        nymbl_engine *engine = NULL;
        nymbl_transfer *own = NULL;
        bool good = nymbl_engine_new(&engine, NULL, NULL) == NYMBL_OK &&
                    nymbl_get_start(&own, engine, world.client, "t", "1", "2",
                                    NULL) == NYMBL_OK;

        for (int i = 0; good && i < 20; i++)
            nymbl_engine_pump(engine, 0.001);
        good = good && nymbl_transfer_result(own, NULL) == NYMBL_AGAIN;
        nymbl_transfer_free(own);
        nymbl_client_close(world.client);
        nymbl_engine_free(engine);
        _exit(good ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    peer_respond(&peer, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    request_free(&request);
    peer_close(&peer);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(canceling_before_the_first_pump_opens_nothing),
        TEST(canceling_closes_a_new_connection),
        TEST(canceling_closes_an_exchange_at_any_moment),
        TEST(canceling_an_upload_is_unknown_once_all_was_sent),
        TEST(canceling_a_paused_stream_closes_it),
        TEST(freeing_a_transfer_cancels_it),
        TEST(closing_a_client_ends_its_transfers),
        TEST(closing_a_client_leaves_others_alone),
        TEST(closing_the_last_client_closes_idle_connections),
        TEST(engine_may_be_freed_before_its_transfers),
        TEST(client_may_be_freed_before_its_transfers),
        TEST(client_on_two_engines_keeps_its_proxy),
        TEST(upload_without_its_last_chunk_did_not_happen),
        TEST(child_that_releases_all_leaves_the_parent_alone),
        TEST(child_can_have_its_own_engine),
        TEST(client_on_two_engines_keeps_both),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
