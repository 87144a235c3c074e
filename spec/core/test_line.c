/* SPDX-License-Identifier: MIT */
/* A line to a server that says exactly what a test specifies. Some tests run
 * with the engine's own thread, too. */
#include "engine/lines.h"
#include "peer.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define GREETING "AUTH secret-of-test\r\nSELECT 1\r\n"
#define GREETED "+OK\r\n+OK\r\n"

static bool is_threaded(void)
{
    return getenv("NYMBL_TEST_THREAD") != NULL;
}

/* A line to the world's listener, unless the options say otherwise. */
static nymbl_line *line_open(nymbl_line_options options)
{
    nymbl_line *line;

    if (options.unix_path == NULL && options.host == NULL) {
        options.host = "127.0.0.1";
        options.port = world.port;
    }
    REQUIRE(nymbl_line_new(&line, world.engine, &options, NULL) == NYMBL_OK);
    return line;
}

static nymbl_line *line_greeting(void)
{
    return line_open((nymbl_line_options){.greeting = GREETING,
                                          .greeting_size = strlen(GREETING),
                                          .greeting_replies = 2});
}

static nymbl_transfer *ask(nymbl_line *line, const char *bytes)
{
    nymbl_transfer *transfer;

    REQUIRE(nymbl_line_start(&transfer, line, bytes, strlen(bytes), NULL) ==
            NYMBL_OK);
    return transfer;
}

/* Wait until a peer has got exactly these bytes, and forget them. */
static void expect(peer *peer, const char *bytes)
{
    peer_await(peer, strlen(bytes));
    CHECK_TEXT(peer->in.data, bytes);
    text_free(&peer->in);
}

/* Check that nothing arrives at a peer. */
static void expect_nothing(peer *peer)
{
    world_settle();
    peer_take(peer);
    CHECK_NUMBER(peer->in.size, 0);
    CHECK(!peer->eof);
}

/* Wait until a peer sees the end of its connection. */
static void expect_end(peer *peer)
{
    for (int i = 0; i < 5000 && !peer->eof; i++) {
        peer_take(peer);
        world_step();
        if (world.engine == NULL) /* else world_step() waits */
            usleep(2000);
    }
    CHECK(peer->eof);
    CHECK(!peer->broken);
}

static void check_reply(nymbl_transfer *transfer, const char *reply)
{
    size_t size;

    CHECK_NUMBER(ended(transfer, NULL), NYMBL_OK);
    CHECK_TEXT(nymbl_transfer_body(transfer, &size), reply);
    CHECK_NUMBER(size, strlen(reply));
    nymbl_transfer_free(transfer);
}

static void check_failure(nymbl_transfer *transfer, nymbl_kind kind,
                          const char *reason, bool sent)
{
    nymbl_error err = {0};
    size_t size;

    CHECK_NUMBER(ended(transfer, &err), kind);
    CHECK_TEXT(err.reason, reason);
    CHECK(counts_of(transfer).sent == sent);
    CHECK(nymbl_transfer_body(transfer, &size) == NULL);
    nymbl_transfer_free(transfer);
}

/* Wait until a line has ended, and release it. */
static void check_ended(nymbl_line *line)
{
    AWAIT(!nymbl_line_is_open(line));
    nymbl_line_free(line);
}

/* The line's socket, or -1. */
static int line_socket(void)
{
    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_in to;
        socklen_t length = sizeof(to);

        if (getpeername(fd, (struct sockaddr *)&to, &length) == 0 &&
            to.sin_family == AF_INET && ntohs(to.sin_port) == world.port)
            return fd;
    }
    return -1;
}

/* Let few bytes fit into the buffers between the line and its peer. */
static void narrow(const peer *peer)
{
    int fd = line_socket();

    REQUIRE(fd >= 0);
    REQUIRE(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){32768}, sizeof(int)) ==
            0);
    REQUIRE(setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &(int){32768},
                       sizeof(int)) == 0);
}

/* ---- what most tests have in common ---- */

/* Open the world and a line, and let its peer get a request. */
static nymbl_transfer *open_and_ask(nymbl_line **line, peer *peer)
{
    nymbl_transfer *transfer;

    world_open(NULL);
    *line = line_open((nymbl_line_options){0});
    transfer = ask(*line, "a");
    peer_accept(peer);
    expect(peer, "a");
    return transfer;
}

/* Open the world and a line, and begin two requests that do not fit into the
 * buffers between the line and its peer. */
static nymbl_line *open_and_ask_twice(const char *data, size_t size, peer *peer,
                                      nymbl_transfer **first,
                                      nymbl_transfer **second)
{
    nymbl_line *line;

    world_open(NULL);
    line = line_open((nymbl_line_options){0});
    peer_accept(peer);
    narrow(peer);
    REQUIRE(nymbl_line_start(first, line, data, size, NULL) == NYMBL_OK);
    REQUIRE(nymbl_line_start(second, line, data, size, NULL) == NYMBL_OK);
    return line;
}

static void answer(peer *peer, nymbl_transfer *transfer)
{
    peer_say(peer, ":1\r\n");
    check_reply(transfer, ":1\r\n");
}

/* The end of a test whose line was closed. */
static void finish(peer *peer)
{
    expect_end(peer);
    peer_close(peer);
    world_close();
}

/* ---- requests and replies ---- */

static void replies_reach_the_requests_in_their_order(void)
{
    nymbl_transfer *transfers[3];
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    line = line_open((nymbl_line_options){0});
    CHECK(nymbl_line_is_open(line));
    transfers[0] = ask(line, "a\r\n");
    transfers[1] = ask(line, "bb\r\n");
    peer_accept(&peer);
    expect(&peer, "a\r\nbb\r\n");
    CHECK(!nymbl_transfer_is_ready(transfers[0]));
    transfers[2] = ask(line, "c\r\n");
    expect(&peer, "c\r\n");
    peer_say(&peer, "+one\r\n*2\r\n:1\r\n$3\r\n\r\n2\r\n-three\r\n");
    CHECK(counts_of(transfers[2]).sent);
    check_reply(transfers[2], "-three\r\n");
    check_reply(transfers[0], "+one\r\n");
    check_reply(transfers[1], "*2\r\n:1\r\n$3\r\n\r\n2\r\n");
    CHECK(nymbl_line_is_open(line));
    nymbl_line_free(line);
    finish(&peer);
}

static void a_reply_may_arrive_byte_by_byte(void)
{
    static const char reply[] = "*3\r\n$5\r\nhello\r\n:-1\r\n*1\r\n+x\r\n";
    nymbl_transfer *transfer, *next;
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    line = line_open((nymbl_line_options){0});
    transfer = ask(line, "a");
    next = ask(line, "b");
    peer_accept(&peer);
    expect(&peer, "ab");
    for (size_t i = 0; i < strlen(reply); i++) {
        CHECK(!nymbl_transfer_is_ready(transfer));
        peer_send(&peer, reply + i, 1);
    }
    check_reply(transfer, reply);
    CHECK(!nymbl_transfer_is_ready(next));
    peer_say(&peer, ":1\r\n");
    check_reply(next, ":1\r\n");
    nymbl_line_free(line);
    finish(&peer);
}

static void a_reply_may_have_64_kilobytes(void)
{
    char *text = malloc(NYMBL_REPLY_MAX + 1);
    nymbl_line *line;
    peer peer;

    REQUIRE(text != NULL);
    for (int extra = 0; extra < 2; extra++) {
        nymbl_transfer *transfer, *before;

        world_open(NULL);
        line = line_open((nymbl_line_options){0});
        before = ask(line, "a");
        transfer = ask(line, "b");
        peer_accept(&peer);
        expect(&peer, "ab");
        memset(text, 'x', NYMBL_REPLY_MAX);
        memcpy(text, "$65525\r\n", 8);
        text[5] += (char)extra; /* 65526 */
        memcpy(text + NYMBL_REPLY_MAX - 3, "\r\n", 3);
        peer_say(&peer, "+1\r\n");
        peer_say(&peer, text);
        check_reply(before, "+1\r\n");
        if (extra == 0) {
            check_reply(transfer, text);
            CHECK(nymbl_line_is_open(line));
            nymbl_line_free(line);
        } else { /* one byte more is expected, which ends the reply */
            peer_say(&peer, "\r\n");
            check_failure(transfer, NYMBL_PROTOCOL, "bad_response", true);
            check_ended(line);
        }
        peer_close(&peer);
        world_close();
    }
    free(text);
}

static void a_reply_whose_answer_is_dropped_keeps_its_place(void)
{
    nymbl_transfer *second, *third;
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    line = line_open((nymbl_line_options){0});
    CHECK_NUMBER(nymbl_line_send(line, "a", 1, NULL), NYMBL_OK);
    second = ask(line, "b");
    CHECK_NUMBER(nymbl_line_send(line, "c", 1, NULL), NYMBL_OK);
    third = ask(line, "d");
    peer_accept(&peer);
    expect(&peer, "abcd");
    nymbl_transfer_free(second);
    peer_say(&peer, ":1\r\n:2\r\n:3\r\n:4\r\n");
    check_reply(third, ":4\r\n");
    nymbl_line_free(line);
    finish(&peer);
}

static void a_request_canceled_before_it_is_sent_is_removed(void)
{
    nymbl_transfer *transfers[4];
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    line = line_greeting();
    for (int i = 0; i < 4; i++)
        transfers[i] = ask(line, i == 0 ? "a" : i == 1 ? "b" : "c");
    nymbl_transfer_cancel(transfers[1], NYMBL_TIMEOUT, "deadline");
    check_failure(transfers[1], NYMBL_TIMEOUT, "deadline", false);
    peer_accept(&peer);
    expect(&peer, GREETING);
    nymbl_transfer_free(transfers[3]);
    peer_say(&peer, GREETED);
    expect(&peer, "ac");
    nymbl_transfer_cancel(transfers[0], NYMBL_CANCELED, NULL);
    check_failure(transfers[0], NYMBL_CANCELED, NULL, true);
    peer_say(&peer, ":1\r\n:2\r\n");
    check_reply(transfers[2], ":2\r\n");
    nymbl_transfer_free(ask(line, "d")); /* sent or not, it does no harm */
    nymbl_line_free(line);
    finish(&peer);
}

/* Cancel some of many requests at some of their states: the others get their
 * own replies. */
static void replies_stay_matched_whatever_is_canceled(void)
{
    enum { COUNT = 400 };
    nymbl_transfer *transfers[COUNT];
    unsigned state = 20260101;
    nymbl_line *line;
    peer peer;
    size_t at = 0;
    int last = COUNT - 1, got = 0;

    printf("    seed %u\n", state);
    world_open(NULL);
    line = line_open((nymbl_line_options){0});
    peer_accept(&peer);
    for (int i = 0; i < COUNT; i++) {
        char text[32];

        snprintf(text, sizeof(text), "%d ", i);
        transfers[i] = ask(line, text);
        state = state * 1664525u + 1013904223u;
        if ((state >> 24) % 4 == 0)
            world_step();
        if ((state >> 16) % 3 == 0) {
            int which = (int)((state >> 8) % (unsigned)(i + 1));

            nymbl_transfer_free(transfers[which]);
            transfers[which] = NULL;
        }
        if ((state >> 12) % 5 == 0)
            peer_take(&peer);
        while (at < peer.in.size && state % 3 != 0) {
            char reply[40], *end = strchr(peer.in.data + at, ' ');

            if (end == NULL)
                break;
            snprintf(reply, sizeof(reply), ":%d\r\n", atoi(peer.in.data + at));
            at = (size_t)(end + 1 - peer.in.data);
            peer_say(&peer, reply);
        }
    }
    while (last > 0 && transfers[last] == NULL)
        last--;
    /* the rest of the replies */
    for (int quiet = 0;
         quiet < 5000 && transfers[last] != NULL &&
         nymbl_transfer_result(transfers[last], NULL) == NYMBL_AGAIN;
         quiet++) {
        char reply[40], *end = peer_take(&peer) || at < peer.in.size
                                   ? strchr(peer.in.data + at, ' ')
                                   : NULL;

        world_step();
        if (end == NULL)
            continue;
        snprintf(reply, sizeof(reply), ":%d\r\n", atoi(peer.in.data + at));
        at = (size_t)(end + 1 - peer.in.data);
        peer_say(&peer, reply);
        quiet = 0;
    }
    for (int i = 0; i < COUNT; i++) {
        char reply[40];

        if (transfers[i] == NULL)
            continue;
        snprintf(reply, sizeof(reply), ":%d\r\n", i);
        check_reply(transfers[i], reply);
        got++;
    }
    CHECK(got > COUNT / 4 && got < COUNT);
    nymbl_line_free(line);
    finish(&peer);
}

static void long_requests_are_sent_as_the_server_reads(void)
{
    size_t size = 300 * 1000;
    char *data = pattern(size);
    nymbl_transfer *first, *second, *third;
    nymbl_line *line;
    text all = {0};
    peer peer;

    line = open_and_ask_twice(data, size, &peer, &first, &second);
    third = ask(line, "third");
    AWAIT(counts_of(first).sent);
    world_settle();
    CHECK(!counts_of(second).sent); /* so the first is sent in part only */
    nymbl_transfer_free(first);
    while (all.size < 2 * size + 5) {
        REQUIRE(peer_await(&peer, 1));
        text_add(&all, peer.in.data, peer.in.size);
        text_free(&peer.in);
    }
    CHECK(memcmp(all.data, data, size) == 0);
    CHECK(memcmp(all.data + size, data, size) == 0);
    CHECK_TEXT(all.data + 2 * size, "third");
    peer_say(&peer, ":1\r\n:2\r\n:3\r\n");
    check_reply(third, ":3\r\n");
    check_reply(second, ":2\r\n");
    nymbl_line_free(line);
    peer_close(&peer);
    text_free(&all);
    free(data);
    world_close();
}

static void too_many_requests_without_a_reply_are_refused(void)
{
    char *data = calloc(1, NYMBL_LINE_MAX_BYTES + 1);
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    nymbl_line *line;
    nymbl_kind kind;

    REQUIRE(data != NULL);
    world_open(NULL);
    line = line_greeting(); /* nobody answers that */
    for (int i = 0; i < NYMBL_LINE_MAX_REQUESTS; i++)
        REQUIRE(nymbl_line_send(line, "a", 1, NULL) == NYMBL_OK);
    CHECK_NUMBER(nymbl_line_start(&transfer, line, "b", 1, &err), NYMBL_IO);
    CHECK(transfer == NULL && err.kind == NYMBL_IO);
    CHECK_TEXT(err.reason, "line_full");
    CHECK_NUMBER(nymbl_line_send(line, "b", 1, NULL), NYMBL_IO);
    nymbl_line_free(line);
    line = line_greeting();
    REQUIRE(nymbl_line_start(&transfer, line, data, NYMBL_LINE_MAX_BYTES,
                             NULL) == NYMBL_OK);
    CHECK_NUMBER(nymbl_line_send(line, "b", 1, NULL), NYMBL_IO);
    nymbl_transfer_free(transfer); /* unsent, so it makes room */
    world_settle();
    err = (nymbl_error){0};
    CHECK_NUMBER(nymbl_line_send(line, data, NYMBL_LINE_MAX_BYTES + 1, &err),
                 NYMBL_IO);
    CHECK_TEXT(err.reason, "line_full");
    kind = nymbl_line_send(line, "b", 1, NULL);
    for (int i = 0; i < 1000 && kind == NYMBL_IO; i++) { /* a busy thread */
        world_step();
        kind = nymbl_line_send(line, "b", 1, NULL);
    }
    CHECK_NUMBER(kind, NYMBL_OK);
    CHECK_NUMBER(nymbl_line_send(line, "", 0, NULL), NYMBL_MISUSE);
    nymbl_line_free(line);
    free(data);
    world_close();
}

/* ---- the greeting ---- */

static void no_request_is_sent_before_the_greeting_is_answered(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    line = line_greeting();
    transfer = ask(line, "a");
    peer_accept(&peer);
    expect(&peer, GREETING);
    expect_nothing(&peer);
    peer_say(&peer, "+OK\r\n+");
    expect_nothing(&peer);
    CHECK(!counts_of(transfer).sent);
    peer_say(&peer, "OK\r\n");
    expect(&peer, "a");
    answer(&peer, transfer);
    nymbl_line_free(line);
    finish(&peer);
}

static void a_refused_greeting_is_the_reply_to_each_request(void)
{
    static const char *const said[] = {
        "-NOAUTH no\r\n", "+OK\r\n-NOAUTH no\r\n", "-NOAUTH no\r\n+OK\r\n"};

    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        nymbl_transfer *first, *second;
        nymbl_line *line;
        peer peer;

        world_open(NULL);
        line = line_greeting();
        first = ask(line, "a");
        second = ask(line, "b");
        CHECK_NUMBER(nymbl_line_send(line, "c", 1, NULL), NYMBL_OK);
        peer_accept(&peer);
        expect(&peer, GREETING);
        peer_say(&peer, said[i]);
        CHECK_NUMBER(ended(first, NULL), NYMBL_OK);
        CHECK(!counts_of(first).sent);
        check_reply(first, "-NOAUTH no\r\n");
        check_reply(second, "-NOAUTH no\r\n");
        check_ended(line);
        finish(&peer);
    }
}

static void an_error_instead_of_a_welcome_is_the_reply_to_each_request(void)
{
    static const char refusal[] = "-ERR max number of clients reached\r\n";
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    line = line_open((nymbl_line_options){0});
    transfer = ask(line, "a");
    peer_accept(&peer);
    /* before or after the request is sent */
    peer_say(&peer, refusal);
    check_reply(transfer, refusal);
    peer_close(&peer);
    check_ended(line);

    line = line_open((nymbl_line_options){0});
    peer_accept(&peer);
    world_settle();
    peer_say(&peer, refusal);
    check_ended(line);
    finish(&peer);
}

static void a_greeting_answered_before_it_was_sent_is_no_greeting(void)
{
    char *greeting = calloc(1, NYMBL_LINE_MAX_BYTES);
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    if (is_threaded()) {
        test_skip("the thread sends it before this test can intervene");
        free(greeting);
        return;
    }
    REQUIRE(greeting != NULL);
    world_open(NULL);
    line = line_open((nymbl_line_options){.greeting = greeting,
                                          .greeting_size = NYMBL_LINE_MAX_BYTES,
                                          .greeting_replies = 1});
    transfer = ask(line, "a");
    nymbl_engine_pump(world.engine, 0); /* connecting */
    peer.fd = -1;
    setsockopt(line_socket(), SOL_SOCKET, SO_SNDBUF, &(int){32768},
               sizeof(int));
    peer_accept(&peer);
    narrow(&peer);
    world_settle();
    peer_say(&peer, "+OK\r\n");
    check_failure(transfer, NYMBL_PROTOCOL, "bad_response", false);
    check_ended(line);
    peer_close(&peer);
    free(greeting);
    world_close();
}

/* ---- ends ---- */

static void bytes_that_are_no_reply_end_the_line(void)
{
    static const struct {
        const char *said, *reason;
    } cases[] = {
        {"HTTP/1.1 400 Bad Request\r\n", "bad_response"},
        {"$-1\r\n$3\r\nabcd\r\n", "bad_response"},
        {"$65537\r\n", "response_too_long"},
        {"*65\r\n", "response_too_long"},
        {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", "response_too_long"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool is_second = strncmp(cases[i].said, "$-1", 3) == 0;
        nymbl_transfer *first, *second;
        nymbl_line *line;
        peer peer;

        world_open(NULL);
        line = line_open((nymbl_line_options){0});
        first = ask(line, "a");
        second = ask(line, "b");
        peer_accept(&peer);
        expect(&peer, "ab");
        peer_say(&peer, cases[i].said);
        if (is_second)
            check_reply(first, "$-1\r\n");
        else
            check_failure(first, NYMBL_PROTOCOL, cases[i].reason, true);
        check_failure(second, NYMBL_PROTOCOL, cases[i].reason, true);
        check_ended(line);
        finish(&peer);
    }
}

static void a_reply_that_nobody_waits_for_ends_the_line(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    nymbl_line *line;
    peer peer;

    transfer = open_and_ask(&line, &peer);
    peer_say(&peer, ":1\r\n:2\r\n");
    check_reply(transfer, ":1\r\n");
    expect_end(&peer);
    CHECK_NUMBER(nymbl_line_start(&transfer, line, "b", 1, &err),
                 NYMBL_NETWORK);
    CHECK(transfer == NULL);
    CHECK_TEXT(err.reason, "reset");
    check_ended(line);
    finish(&peer);
}

/* The bytes have arrived, but no poll has reported them: it was before. */
static void nothing_is_sent_after_a_reply_that_nobody_waits_for(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    if (is_threaded()) {
        test_skip("this test is the pump itself");
        return;
    }
    world_open(NULL);
    line = line_open((nymbl_line_options){0});
    transfer = ask(line, "a");
    peer_accept(&peer);
    expect(&peer, "a");
    peer_say(&peer, ":1\r\n");
    check_reply(transfer, ":1\r\n");
    CHECK(send(peer.fd, ":2\r\n", 4, MSG_NOSIGNAL) == 4); /* no pump runs */
    CHECK(poll(&(struct pollfd){.fd = line_socket(), .events = POLLIN}, 1,
               5000) == 1);
    world.engine->pumping = true; /* as if an I/O thread did it */
    transfer = ask(line, "b");
    nymbl__lines_step(world.engine);
    world.engine->pumping = false;
    check_failure(transfer, NYMBL_PROTOCOL, "bad_response", false);
    expect_end(&peer);
    CHECK_NUMBER(peer.in.size, 0);
    check_ended(line);
    peer_close(&peer);
    world_close();
}

static void a_connection_cut_anywhere_fails_what_has_no_reply(void)
{
    static const char said[] = GREETED "*2\r\n:1\r\n$2\r\nab\r\n:7\r\n";
    size_t greeted = strlen(GREETED), second = strlen(said) - 4;

    for (size_t cut = 0; cut <= strlen(said); cut++) {
        nymbl_transfer *transfers[2];
        nymbl_line *line;
        peer peer;

        world_open(NULL);
        line = line_greeting();
        transfers[0] = ask(line, "a");
        transfers[1] = ask(line, "b");
        peer_accept(&peer);
        expect(&peer, GREETING);
        peer_send(&peer, said, cut < greeted ? cut : greeted);
        if (cut > greeted) {
            expect(&peer, "ab");
            peer_send(&peer, said + greeted, cut - greeted);
        } else if (cut == greeted) {
            expect(&peer, "ab");
        }
        if (cut % 2 == 0)
            peer_close(&peer);
        else
            peer_reset(&peer);
        if (cut >= second)
            check_reply(transfers[0], "*2\r\n:1\r\n$2\r\nab\r\n");
        else
            check_failure(transfers[0], NYMBL_NETWORK, "reset", cut >= greeted);
        if (cut == strlen(said))
            check_reply(transfers[1], ":7\r\n");
        else
            check_failure(transfers[1], NYMBL_NETWORK, "reset", cut >= greeted);
        check_ended(line);
        world_close();
    }
}

static void nothing_is_sent_to_a_server_that_has_closed(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    transfer = open_and_ask(&line, &peer);
    answer(&peer, transfer);
    peer_close(&peer);
    if (is_threaded()) { /* a request might be sent before the thread sees it */
        AWAIT(!nymbl_line_is_open(line));
        CHECK(nymbl_line_start(&transfer, line, "b", 1, NULL) == NYMBL_NETWORK);
    } else {
        check_failure(ask(line, "b"), NYMBL_NETWORK, "reset", false);
        CHECK_NUMBER(nymbl_object_count(), 2); /* the client and the line */
    }
    check_ended(line);
    world_close();
}

/* Start a request while the connection fails. With an I/O thread the line may
 * have ended already. Returns the transfer, or NULL. */
static nymbl_transfer *ask_late(nymbl_line *line, const char *bytes)
{
    nymbl_transfer *transfer;
    nymbl_kind started =
        nymbl_line_start(&transfer, line, bytes, strlen(bytes), NULL);

    if (started == NYMBL_OK)
        return transfer;
    CHECK(is_threaded() && started == NYMBL_NETWORK);
    return NULL;
}

static void a_connection_that_fails_fails_all_requests(void)
{
    char path[128];
    int closed = listener_open(&(int){0}, 1);
    nymbl_line_options options[] = {
        {.host = "127.0.0.1"},
        {.unix_path = path},
        {.host = "no-such-host.invalid", .port = 1},
    };
    struct sockaddr_in address;
    socklen_t length = sizeof(address);

    REQUIRE(getsockname(closed, (struct sockaddr *)&address, &length) == 0);
    options[0].port = ntohs(address.sin_port);
    close(closed);
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const char *reason = i == 2 ? "resolve" : "connect";
        nymbl_transfer *first, *second;
        nymbl_line *line;

        world_open(NULL);
        snprintf(path, sizeof(path), "%s", world_path("absent.sock"));
        line = line_open(options[i]);
        first = ask_late(line, "a");
        second = ask_late(line, "b");
        if (first != NULL)
            check_failure(first, NYMBL_NETWORK, reason, false);
        if (second != NULL)
            check_failure(second, NYMBL_NETWORK, reason, false);
        check_ended(line);
        world_close();
    }
}

static void a_unix_socket_is_connected(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    REQUIRE(listener >= 0);
    world_open(NULL);
    snprintf(name.sun_path, sizeof(name.sun_path), "%s", world_path("socket"));
    REQUIRE(bind(listener, (struct sockaddr *)&name, sizeof(name)) == 0);
    REQUIRE(listen(listener, 8) == 0);
    line = line_open((nymbl_line_options){.unix_path = name.sun_path});
    transfer = ask(line, "a");
    peer_accept_at(&peer, listener);
    expect(&peer, "a");
    answer(&peer, transfer);
    nymbl_line_free(line);
    finish(&peer);
    close(listener);
}

/* ---- time ---- */

static void an_unanswered_greeting_is_a_timeout(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    line = line_open((nymbl_line_options){.greeting = GREETING,
                                          .greeting_size = strlen(GREETING),
                                          .greeting_replies = 2,
                                          .connect_timeout = 0.5});
    transfer = ask(line, "a");
    peer_accept(&peer);
    expect(&peer, GREETING);
    peer_say(&peer, "+OK\r\n");
    check_failure(transfer, NYMBL_TIMEOUT, "connect", false);
    check_ended(line);
    finish(&peer);
}

static void a_program_that_does_not_pump_causes_no_timeout(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    /* its own clock runs while the program does something else */
    line = line_open((nymbl_line_options){.connect_timeout = 0.2});
    transfer = ask(line, "a");
    world_settle();
    usleep(400000);
    peer_accept(&peer);
    for (int i = 0; i < 100 && peer.in.size == 0; i++) {
        if (peer_waits()) { /* libcurl has given up: another attempt */
            peer_close(&peer);
            peer_accept(&peer);
        }
        peer_take(&peer);
        world_step();
    }
    expect(&peer, "a");
    answer(&peer, transfer);
    nymbl_line_free(line);
    finish(&peer);
}

/* The thread polls when the line is opened: that time does not count. */
static void a_line_opened_on_an_idle_engine_has_its_time_to_connect(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    REQUIRE(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    usleep(1300000);
    line = line_open((nymbl_line_options){.greeting = GREETING,
                                          .greeting_size = strlen(GREETING),
                                          .greeting_replies = 2,
                                          .connect_timeout = 1});
    transfer = ask(line, "a");
    peer_accept(&peer);
    expect(&peer, GREETING);
    peer_say(&peer, GREETED);
    expect(&peer, "a");
    answer(&peer, transfer);
    nymbl_line_free(line);
    finish(&peer);
}

static void an_idle_line_closes_itself(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    world_open(NULL);
    line = line_open((nymbl_line_options){.idle_timeout = 1});
    transfer = ask(line, "a");
    peer_accept(&peer);
    expect(&peer, "a");
    usleep(1300000); /* a request without a reply is waited for */
    world_settle();
    CHECK(nymbl_line_is_open(line));
    CHECK(!nymbl_transfer_is_ready(transfer));
    answer(&peer, transfer);
    CHECK(nymbl_line_is_open(line));
    CHECK_NUMBER(nymbl_line_send(line, "b", 1, NULL), NYMBL_OK);
    expect(&peer, "b"); /* nobody waits for this reply */
    check_ended(line);
    finish(&peer);
}

static void a_line_that_was_idle_for_too_long_is_not_used_again(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    if (is_threaded()) {
        test_skip("the fake clock is for one thread");
        return;
    }
    world_open(NULL);
    world.fake = true;
    world.now = 1000;
    line = line_open((nymbl_line_options){0});
    transfer = ask(line, "a");
    peer_accept(&peer);
    expect(&peer, "a");
    answer(&peer, transfer);
    world.now += 59;
    CHECK(nymbl_line_is_open(line));
    world.now += 2;
    CHECK(!nymbl_line_is_open(line)); /* although nobody has pumped */
    CHECK_NUMBER(nymbl_line_start(&transfer, line, "b", 1, NULL),
                 NYMBL_NETWORK);
    nymbl_line_free(line);
    finish(&peer);
}

/* ---- closing ---- */

static void closing_sends_what_can_be_sent_and_fails_the_rest(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    transfer = open_and_ask(&line, &peer);
    CHECK_NUMBER(nymbl_line_send(line, "b", 1, NULL), NYMBL_OK);
    CHECK_NUMBER(nymbl_line_send(line, "c", 1, NULL), NYMBL_OK);
    nymbl_line_free(line);
    check_failure(transfer, NYMBL_CANCELED, "closed", true);
    expect(&peer, "bc");
    finish(&peer);
}

static void a_request_that_nobody_waits_for_is_sent_without_pumping(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    transfer = open_and_ask(&line, &peer);
    answer(&peer, transfer);
    CHECK_NUMBER(nymbl_line_send(line, "b", 1, NULL), NYMBL_OK);
    for (int i = 0; i < 1000 && !peer_take(&peer); i++)
        usleep(1000);
    expect(&peer, "b");
    nymbl_line_free(line);
    finish(&peer);
}

/* The number of times that the clock is read while a line is closed: each step
 * does that. */
static double steps_to_close(nymbl_line *line)
{
    double before = world.now;

    world.tick = 1e-6;
    nymbl_line_free(line);
    world.tick = 0;
    return (world.now - before) / 1e-6;
}

static void closing_waits_for_replies_but_not_for_a_silent_server(void)
{
    if (is_threaded()) {
        test_skip("the fake clock is for one thread");
        return;
    }
    for (int silent = 0; silent < 2; silent++) {
        nymbl_line *line;
        peer peer;

        world_open(NULL);
        world.fake = true;
        world.now = 1000;
        line = line_open((nymbl_line_options){0});
        nymbl_transfer_free(ask(line, "a"));
        peer_accept(&peer);
        nymbl_transfer_free(ask(line, "b"));
        world_settle();
        CHECK_NUMBER(nymbl_line_send(line, "c", 1, NULL), NYMBL_OK);
        world.now += silent;
        if (silent)
            CHECK(steps_to_close(line) < 5);
        else
            CHECK(steps_to_close(line) > 15);
        finish(&peer);
    }
}

static void freeing_the_engine_ends_its_lines(void)
{
    nymbl_transfer *transfer, *unsent;
    nymbl_line *line, *other;
    peer peer;

    transfer = open_and_ask(&line, &peer);
    other = line_greeting();
    unsent = ask(other, "b");
    CHECK_NUMBER(nymbl_line_send(line, "c", 1, NULL), NYMBL_OK);
    nymbl_engine_free(world.engine);
    world.engine = NULL;
    check_failure(transfer, NYMBL_CANCELED, "closed", true);
    check_failure(unsent, NYMBL_CANCELED, "closed", false);
    CHECK(!nymbl_line_is_open(line));
    CHECK_NUMBER(nymbl_line_send(line, "d", 1, NULL), NYMBL_NETWORK);
    expect(&peer, "c");
    expect_end(&peer);
    nymbl_line_free(line);
    nymbl_line_free(other);
    peer_close(&peer);
    world_close();
}

static void freeing_the_engine_waits_for_no_server_that_reads_nothing(void)
{
    size_t size = 300 * 1000;
    char *data = pattern(size);
    nymbl_transfer *first, *second;
    nymbl_line *line;
    peer peer;

    line = open_and_ask_twice(data, size, &peer, &first, &second);
    AWAIT(counts_of(first).sent);
    world_settle();
    nymbl_engine_free(world.engine);
    world.engine = NULL;
    check_failure(first, NYMBL_CANCELED, "closed", true);
    check_failure(second, NYMBL_CANCELED, "closed", false);
    nymbl_line_free(line);
    expect_end(&peer);
    CHECK(peer.in.size > 0 && peer.in.size < size);
    CHECK(memcmp(peer.in.data, data, peer.in.size) == 0);
    peer_close(&peer);
    free(data);
    world_close();
}

static void a_line_outlives_the_last_client(void)
{
    nymbl_transfer *transfer, *get;
    nymbl_line *line;
    peer peer, service;

    transfer = open_and_ask(&line, &peer);
    get = accept_request(start_get(), &service);
    peer_respond(&service, 200, "Content-Type: application/json\r\n", "{}");
    CHECK_NUMBER(ended(get, NULL), NYMBL_OK);
    nymbl_transfer_free(get);
    nymbl_client_close(world.client);
    expect_end(&service); /* the client's connection is closed */
    peer_close(&service);
    answer(&peer, transfer);
    transfer = ask(line, "b");
    expect(&peer, "b");
    peer_say(&peer, ":2\r\n");
    check_reply(transfer, ":2\r\n");
    nymbl_line_free(line);
    finish(&peer);
}

static void an_engine_whose_line_has_no_request_is_idle(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    transfer = open_and_ask(&line, &peer);
    CHECK(!nymbl_engine_is_idle(world.engine));
    answer(&peer, transfer);
    CHECK_NUMBER(nymbl_line_send(line, "b", 1, NULL), NYMBL_OK);
    CHECK(nymbl_engine_is_idle(world.engine) == !is_threaded());
    nymbl_line_free(line);
    finish(&peer);
}

static void a_line_stays_open_when_the_thread_starts(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    peer peer;

    transfer = open_and_ask(&line, &peer);
    REQUIRE(nymbl_engine_start_thread(world.engine, NULL) == NYMBL_OK);
    answer(&peer, transfer);
    transfer = ask(line, "b");
    expect(&peer, "b");
    peer_say(&peer, ":2\r\n");
    check_reply(transfer, ":2\r\n");
    nymbl_line_free(line);
    finish(&peer);
}

static void reconnecting_leaves_nothing(void)
{
    world_open(NULL);
    for (int i = 0; i < 100; i++) {
        nymbl_line *line = line_open((nymbl_line_options){0});
        nymbl_transfer *transfer = ask(line, "a");
        int before = fds_open();
        peer peer;

        peer_accept(&peer);
        expect(&peer, "a");
        if (i % 3 == 0) {
            answer(&peer, transfer);
        }
        if (i % 2 == 0)
            nymbl_line_free(line);
        peer_close(&peer);
        if (i % 3 != 0) {
            CHECK(ended(transfer, NULL) < 0);
            nymbl_transfer_free(transfer);
        }
        if (i % 2 != 0)
            check_ended(line);
        world_settle();
        if (!is_threaded())
            CHECK(fds_open() <= before);
    }
    world_close(); /* checks descriptors and objects */
}

/* ---- fork ---- */

/* A child cannot use its parent's line, and does not disturb it. */
static void a_forked_child_does_not_disturb_the_line(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    int status;
    pid_t child;
    peer peer;

    world_open(NULL);
    line = line_greeting();
    transfer = ask(line, "a");
    peer_accept(&peer);
    expect(&peer, GREETING);
    peer_say(&peer, GREETED);
    expect(&peer, "a");
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        nymbl_transfer *other;
        nymbl_error err = {0};

        CHECK(!nymbl_line_is_open(line));
        CHECK_NUMBER(nymbl_line_start(&other, line, "b", 1, &err),
                     NYMBL_CANCELED);
        CHECK_TEXT(err.reason, "forked");
        CHECK_NUMBER(nymbl_line_send(line, "b", 1, NULL), NYMBL_CANCELED);
        CHECK_NUMBER(nymbl_transfer_result(transfer, NULL), NYMBL_CANCELED);
        nymbl_transfer_free(transfer);
        nymbl_line_free(line);
        nymbl_engine_free(world.engine);
        _exit(test_failed() ? 1 : 0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect_nothing(&peer);
    answer(&peer, transfer);
    nymbl_line_free(line);
    finish(&peer);
}

static void the_server_sees_the_end_although_a_child_has_the_socket(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    int wake[2], status;
    pid_t child;
    peer peer;
    char byte;

    world_open(NULL);
    REQUIRE(pipe(wake) == 0);
    line = line_open((nymbl_line_options){0});
    transfer = ask(line, "a");
    peer_accept(&peer);
    expect(&peer, "a");
    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        close(wake[1]);
        _exit(read(wake[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(wake[0]);
    nymbl_line_free(line);
    check_failure(transfer, NYMBL_CANCELED, "closed", true);
    expect_end(&peer);
    close(wake[1]);
    CHECK(waitpid(child, &status, 0) == child);
    peer_close(&peer);
    world_close();
}

static void the_socket_is_close_on_exec_and_sends_at_once(void)
{
    nymbl_transfer *transfer;
    nymbl_line *line;
    socklen_t size = sizeof(int);
    int fd, no_delay = 0;
    peer peer;

    transfer = open_and_ask(&line, &peer);
    fd = line_socket();
    REQUIRE(fd > 2);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size);
    CHECK(no_delay != 0);
    nymbl_transfer_free(transfer);
    nymbl_line_free(line);
    finish(&peer);
}

/* ---- options ---- */

static void invalid_options_are_named(void)
{
    static char long_path[200];
    static const struct {
        nymbl_line_options options;
        const char *name;
    } cases[] = {
        {{.port = 1}, "host"},
        {{.host = "a", .port = 1, .unix_path = "/a"}, "host"},
        {{.host = "", .port = 1}, "host"},
        {{.host = "a b", .port = 1}, "host"},
        {{.host = "a/b", .port = 1}, "host"},
        {{.host = "u@a", .port = 1}, "host"},
        {{.host = "a?b", .port = 1}, "host"},
        {{.host = "a#b", .port = 1}, "host"},
        {{.host = "a:1", .port = 1}, "host"},
        {{.host = "[::1]", .port = 1}, "host"},
        {{.host = "a"}, "port"},
        {{.host = "a", .port = 65536}, "port"},
        {{.host = "a", .port = -1}, "port"},
        {{.unix_path = ""}, "unix_path"},
        {{.unix_path = long_path}, "unix_path"},
        {{.unix_path = "/a", .tls = true}, "tls"},
        {{.unix_path = "/a", .greeting = "x", .greeting_replies = 1},
         "greeting"},
        {{.unix_path = "/a", .greeting_replies = 1}, "greeting_replies"},
        {{.unix_path = "/a", .greeting = "x", .greeting_size = 1},
         "greeting_replies"},
        {{.unix_path = "/a", .connect_timeout = -1}, "connect_timeout"},
        {{.unix_path = "/a", .idle_timeout = -1}, "idle_timeout"},
    };

    memset(long_path, 'a', sizeof(long_path) - 1);
    world_open(NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        nymbl_error err = {0};
        nymbl_line *line;

        CHECK_NUMBER(
            nymbl_line_new(&line, world.engine, &cases[i].options, &err),
            NYMBL_MISUSE);
        CHECK(line == NULL);
        if (!CHECK_TEXT(err.reason, cases[i].name))
            printf("    in case %zu\n", i);
    }
    nymbl_line_free(line_open((nymbl_line_options){.host = "::1", .port = 1}));
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(replies_reach_the_requests_in_their_order),
        TEST(a_reply_may_arrive_byte_by_byte),
        TEST(a_reply_may_have_64_kilobytes),
        TEST(a_reply_whose_answer_is_dropped_keeps_its_place),
        TEST(a_request_canceled_before_it_is_sent_is_removed),
        TEST(replies_stay_matched_whatever_is_canceled),
        TEST(long_requests_are_sent_as_the_server_reads),
        TEST(too_many_requests_without_a_reply_are_refused),
        TEST(no_request_is_sent_before_the_greeting_is_answered),
        TEST(a_refused_greeting_is_the_reply_to_each_request),
        TEST(an_error_instead_of_a_welcome_is_the_reply_to_each_request),
        TEST(a_greeting_answered_before_it_was_sent_is_no_greeting),
        TEST(bytes_that_are_no_reply_end_the_line),
        TEST(a_reply_that_nobody_waits_for_ends_the_line),
        TEST(nothing_is_sent_after_a_reply_that_nobody_waits_for),
        TEST(a_connection_cut_anywhere_fails_what_has_no_reply),
        TEST(nothing_is_sent_to_a_server_that_has_closed),
        TEST(a_connection_that_fails_fails_all_requests),
        TEST(a_unix_socket_is_connected),
        TEST(an_unanswered_greeting_is_a_timeout),
        TEST(a_program_that_does_not_pump_causes_no_timeout),
        TEST(a_line_opened_on_an_idle_engine_has_its_time_to_connect),
        TEST(an_idle_line_closes_itself),
        TEST(a_line_that_was_idle_for_too_long_is_not_used_again),
        TEST(closing_sends_what_can_be_sent_and_fails_the_rest),
        TEST(a_request_that_nobody_waits_for_is_sent_without_pumping),
        TEST(closing_waits_for_replies_but_not_for_a_silent_server),
        TEST(freeing_the_engine_ends_its_lines),
        TEST(freeing_the_engine_waits_for_no_server_that_reads_nothing),
        TEST(a_line_outlives_the_last_client),
        TEST(an_engine_whose_line_has_no_request_is_idle),
        TEST(a_line_stays_open_when_the_thread_starts),
        TEST(reconnecting_leaves_nothing),
        TEST(a_forked_child_does_not_disturb_the_line),
        TEST(the_server_sees_the_end_although_a_child_has_the_socket),
        TEST(the_socket_is_close_on_exec_and_sends_at_once),
        TEST(invalid_options_are_named),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
