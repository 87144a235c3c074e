/* SPDX-License-Identifier: MIT */
/* What a hostile or unusual server can cause through libcurl's own bugs, and
 * which of its bytes are sent back to it. */
#include "peer.h"

#include <math.h>

#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* ---- an exchange, whatever the previous one ---- */

/* The first response on a handle and a connection. */
static const char *const before[] = {
    NULL, /* no response: it is the first exchange */
    "HTTP/1.1 200 OK\r\nX-First: 1\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 404 No\r\nContent-Length: 0\r\nX-Last: a: b\r\n\r\n",
    "HTTP/1.1 103 Hint\r\nLink: </x>\r\n\r\n"
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
    "2\r\n{}\r\n0\r\nX-T: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 204 None\r\n\r\n",
};

static const char *const hostile[] = {
    "HTTP/1.1 200 OK\r\n A: x\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\n\tA: x\r\n\tB: y\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 200 OK\r\n \r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 404 No\r\n A: x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\n A: x\nContent-Length: 2\n\n{}",
    "HTTP/1.1 103 Hint\r\n A: x\r\n\r\n"
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.1 103 Hint\r\nA: x\r\n\r\n"
    "HTTP/1.1 200 OK\r\n B: y\r\nContent-Length: 2\r\n\r\n{}",
};

/* Whether bytes have arrived. */
static bool peer_has_bytes(const peer *peer)
{
    char byte;

    return peer->fd >= 0 &&
           recv(peer->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Wait for the next request, on the existing connection or on a new one; false
 * if the transfer ends without a request. */
static bool await(peer *peer, nymbl_transfer *transfer)
{
    for (int i = 0; i < 5000; i++) {
        if (peer_waits()) {
            peer_close(peer);
            peer_accept(peer);
        }
        if (peer_has_bytes(peer))
            return true;
        if (nymbl_transfer_result(transfer, NULL) != NYMBL_AGAIN)
            return false;
        world_step();
    }
    return false;
}

/* Receive that request. */
static void take(peer *peer, nymbl_transfer *transfer)
{
    request request;

    REQUIRE(await(peer, transfer));
    peer_read(peer, &request);
    CHECK(!request.cut);
    request_free(&request);
}

/* Start the nth kind of call. */
static nymbl_transfer *start(int call, nymbl_body *body)
{
    switch (call) {
    case 0:
        return start_get();
    case 1:
        return start_list(NULL);
    case 2:
        return start_delete();
    case 3:
        return start_download(NULL);
    default:
        return start_upload(body);
    }
}

/* Let the nth kind of call end. */
static nymbl_kind finish(int call, nymbl_transfer *transfer, nymbl_error *err)
{
    text got = {0};
    nymbl_kind kind;

    if (call != 3)
        return ended(transfer, err);
    kind = read_all(transfer, &got, err);
    text_free(&got);
    return kind == NYMBL_DONE ? NYMBL_OK : kind;
}

static void nonsense_follows(size_t first, size_t then, int call)
{
    nymbl_transfer *transfer;
    nymbl_body *body;
    nymbl_error err = {0};
    peer peer = {.fd = -1};
    size_t size;

    world_open(NULL);
    body = body_of("%PDF-1.7", 8);
    if (before[first] != NULL) {
        int earlier = (call + (int)first) % 4;

        transfer = start(earlier, NULL);
        take(&peer, transfer);
        peer_say(&peer, before[first]);
        finish(earlier, transfer, NULL);
        nymbl_transfer_free(transfer);
    }
    transfer = start(call, body);
    take(&peer, transfer);
    peer_say(&peer, hostile[then]);
    if (!CHECK(ended(transfer, &err) == NYMBL_PROTOCOL))
        printf("%s for %zu, %zu, call %d\n", nymbl_kind_name(err.kind), first,
               then, call);
    CHECK_TEXT(err.reason, "bad_response");
    CHECK(err.outcome_unknown == (call == 2 || call == 4));
    nymbl_transfer_free(transfer);
    /* the next call is not affected */
    transfer = start_get();
    take(&peer, transfer);
    peer_respond(&peer, 200, "X: y\r\n", "{\"a\":1}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    CHECK_TEXT(nymbl_transfer_body(transfer, &size), "{\"a\":1}");
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    peer_close(&peer);
    world_close();
}

/* Before 8.1 libcurl corrupts the heap (curl issue 11101). */
static void folded_first_line_is_refused(void)
{
    size_t firsts = sizeof(before) / sizeof(before[0]);
    size_t thens = sizeof(hostile) / sizeof(hostile[0]);

    for (size_t i = 0; i < firsts && !test_failed(); i++) {
        for (size_t j = 0; j < thens && !test_failed(); j++)
            nonsense_follows(i, j, (int)((i + j) % 5));
    }
}

/* The target of a redirect is a second exchange, too. */
static void folded_first_line_of_a_redirects_target_is_refused(void)
{
    static const char *const redirects[] = {
        "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 5\r\n\r\nmoved",
        ("HTTP/1.1 307 Found\r\nContent-Length: 0\r\nConnection: close\r\n"
         "Location: /x\r\n\r\n"),
    };
    size_t thens = sizeof(hostile) / sizeof(hostile[0]);

    for (size_t i = 0; i < 3 * thens; i++) {
        nymbl_transfer *transfer;
        nymbl_error err = {0};
        peer peer = {.fd = -1};

        world_open(NULL);
        transfer = start_download(NULL);
        take(&peer, transfer);
        peer_say(&peer, redirects[i / thens]);
        if (i % 2 == 0) { /* one more redirect */
            take(&peer, transfer);
            peer_say(&peer, redirects[i / thens]);
        }
        take(&peer, transfer);
        peer_say(&peer, hostile[i % thens]);
        CHECK(ended(transfer, &err) == NYMBL_PROTOCOL);
        CHECK_TEXT(err.reason, "bad_response");
        nymbl_transfer_free(transfer);
        peer_close(&peer);
        world_close();
    }
}

/* All exchanges share one connection, whichever handles they use. */
static void connection_serves_many_exchanges(void)
{
    nymbl_transfer *transfer;
    peer peer = {.fd = -1};
    int fd = -1;

    world_open(NULL);
    for (int i = 0; i < 40; i++) {
        transfer = start(i % 4, NULL);
        take(&peer, transfer);
        CHECK(i == 0 || peer.fd == fd);
        fd = peer.fd;
        if (i % 4 == 3 && i % 8 != 3) { /* a redirect in between */
            peer_respond(&peer, 302, "Location: /x\r\n", "moved");
            take(&peer, transfer);
            CHECK(peer.fd == fd);
        }
        peer_respond(&peer, 200, "", "bytes");
        CHECK(finish(i % 4, transfer, NULL) == NYMBL_OK);
        nymbl_transfer_free(transfer);
        CHECK_NUMBER(sockets_to(world.port), 1);
    }
    peer_close(&peer);
    world_close();
}

/* Different versions of libcurl interpret each of these responses differently.
 */
static void malformed_responses_are_refused(void)
{
    static const char *const responses[] = {
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\rX: y\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n\rContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n 3\r\n\r\n{}",
        "HTTP/2 200\r\nContent-Length: 2\r\n\r\n{}",
        ("HTTP/1.1 101 Switching\r\n\r\n"
         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    };

    for (size_t i = 0; i < sizeof(responses) / sizeof(responses[0]); i++) {
        for (int call = 0; call < 4; call++) {
            nymbl_transfer *transfer;
            nymbl_error err = {0};
            peer peer = {.fd = -1};

            world_open(NULL);
            transfer = start(call, NULL);
            take(&peer, transfer);
            peer_say(&peer, responses[i]);
            peer_close(&peer);
            if (!CHECK(ended(transfer, &err) == NYMBL_PROTOCOL))
                printf("%s for: %s\n", nymbl_kind_name(err.kind), responses[i]);
            nymbl_transfer_free(transfer);
            world_close();
        }
    }
}

static void coding_of_the_transfer_is_refused_as_such(void)
{
    static const nymbl_kind kinds[] = {NYMBL_PROTOCOL, NYMBL_PROTOCOL,
                                       NYMBL_PROTOCOL, NYMBL_CORRUPT};

    for (int call = 0; call < 4; call++) {
        nymbl_transfer *transfer;
        nymbl_error err = {0};
        peer peer = {.fd = -1};

        world_open(NULL);
        transfer = start(call, NULL);
        take(&peer, transfer);
        peer_say(&peer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n"
                        "Connection: close\r\n\r\nxx");
        peer_close(&peer);
        CHECK_NUMBER(ended(transfer, &err), kinds[call]);
        CHECK_TEXT(err.reason, "transfer_encoding");
        nymbl_transfer_free(transfer);
        world_close();
    }
}

/* ---- sockets ---- */

/* libcurl 7.88.0 to 8.1.2 closes a socket that never connected without a
 * callback (curl issue 11439). Another file may then have its number. */
static void socket_of_other_code_is_never_shut_down(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    nymbl_client_options options = {.api_key = "k", .allow_http = true};
    int fillers[8], pair[2], hole, port;
    nymbl_transfer *transfer, *stays;
    nymbl_client *client, *other;
    peer peer = {.fd = -1};
    char url[64], byte;

    world_open(NULL);
    hole = listener_open(&port, 0); /* connections to it are never accepted */
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)port);
    for (int i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fillers[i], (struct sockaddr *)&to, sizeof(to));
    }
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", port);
    options.base_url = url;
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    stays = start_get(); /* so that the engine keeps its connections */
    take(&peer, stays);
    REQUIRE(nymbl_get_start(&transfer, world.engine, client, "tok", "7", "9",
                            NULL) == NYMBL_OK);
    world_settle();
    CHECK(nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN);
    nymbl_transfer_free(transfer);
    world_settle();
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    nymbl_client_free(client);
    world_settle();
    REQUIRE(nymbl_client_new(&other, &options, NULL) == NYMBL_OK);
    nymbl_client_close(other);
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    REQUIRE(nymbl_get_start(&transfer, world.engine, client, "tok", "7", "9",
                            NULL) == NYMBL_OK);
    nymbl_client_close(client);
    world_settle();
    CHECK(send(pair[0], "x", 1, MSG_NOSIGNAL) == 1);
    CHECK(recv(pair[1], &byte, 1, MSG_DONTWAIT) == 1);
    CHECK(send(pair[1], "x", 1, MSG_NOSIGNAL) == 1);
    nymbl_transfer_free(transfer);
    nymbl_client_free(client);
    nymbl_client_free(other);
    nymbl_transfer_free(stays);
    for (int i = 0; i < 8; i++)
        close(fillers[i]);
    close(pair[0]);
    close(pair[1]);
    close(hole);
    peer_close(&peer);
    world_close();
}

/* ---- bytes that are sent back ---- */

/* The head of a request has no line that we did not write. */
static void check_request(const request *request, const char *marker)
{
    const char *at = request->head.data;

    CHECK(strstr(at, marker) == NULL);
    for (; *at != '\0'; at++) {
        bool end = (*at == '\r' && at[1] == '\n') ||
                   (*at == '\n' && at > request->head.data && at[-1] == '\r');

        if (!CHECK(end || (*at >= ' ' && *at < 0x7f))) {
            printf("in: %s\n", request->head.data);
            break;
        }
    }
}

static bool has_bare_cr(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\r' && text[1] != '\n')
            return true;
    }
    return false;
}

/* A download that breaks off and will be resumed. */
static void partial_begin(const char *headers)
{
    nymbl_download_options options = {.path = world_path("doc"),
                                      .resume = true};
    nymbl_transfer *transfer = start_download(&options);
    peer peer = {.fd = -1};
    nymbl_kind kind;

    take(&peer, transfer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n");
    peer_say(&peer, headers);
    peer_say(&peer, "\r\n%PDF-1.7 and as much more as is looked at, or more");
    world_settle();
    peer_close(&peer);
    /* libcurl 8.21 refuses a response with a CR within its head */
    kind = ended(transfer, NULL);
    CHECK(kind == NYMBL_TRUNCATED ||
          (has_bare_cr(headers) && kind == NYMBL_PROTOCOL));
    nymbl_transfer_free(transfer);
}

/* Whether the next attempt requests only the remaining bytes. */
static bool partial_is_resumed(const char *marker)
{
    nymbl_download_options options = {.path = world_path("doc"),
                                      .resume = true};
    nymbl_transfer *transfer = start_download(&options);
    request request;
    bool rest;
    peer peer;

    peer_accept(&peer);
    peer_read(&peer, &request);
    check_request(&request, marker);
    rest = request_field(&request, "If-Range") != NULL;
    CHECK(rest == (request_field(&request, "Range") != NULL));
    CHECK_NUMBER(request_fields(&request, "Authorization"), 1);
    request_free(&request);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    return rest;
}

static void validator_of_a_response_is_sent_unchanged_or_not_at_all(void)
{
    static const char *const good[] = {
        "ETag: \"a-b\"\r\n", "ETag: \"\x80\"\r\n",
        ("Date: Sun, 06 Nov 1994 08:49:47 GMT\r\n"
         "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n")};
    static const char *const bad[] = {
        "ETag: \"a\rX-Injected: 1\"\r\n",
        "ETag: \"a\rX-Injected: 1\rb\"\r\n",
        "ETag: \"a\x0bX-Injected: 1\"\r\n",
        "ETag: \"a X-Injected\"\r\n",
        "ETag: \"a\tX-Injected\"\r\n",
        "ETag: \"a\"X-Injected\"\r\n",
        "ETag: W/\"X-Injected\"\r\n",
        "ETag: X-Injected\r\n",
        "Date: Sun, 06 Nov 1994 08:49:47 GMT\r\n"
        "Last-Modified: Sun, 06 Nov 1994\r08:49:37 GMT\r\n",
        "Date: Sun, 06 Nov 1994 08:49:47 GMT\r\n"
        "Last-Modified: Sun, 06 Nov 1994 (X-Injected) 08:49:37 GMT\r\n",
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        world_open(NULL);
        partial_begin(good[i]);
        if (i != 1) /* a byte that is allowed, but is not visible ASCII */
            CHECK(partial_is_resumed("X-Injected"));
        world_close();
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        world_open(NULL);
        partial_begin(bad[i]);
        CHECK(!partial_is_resumed("X-Injected"));
        world_close();
    }
}

/* Put a byte into the file that contains the text "a-b". */
static bool meta_change(char byte)
{
    DIR *dir = opendir(world.dir);
    struct dirent *entry;
    bool found = false;

    REQUIRE(dir != NULL);
    for (entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        text content;
        char *at;

        if (entry->d_name[0] == '.' && entry->d_name[1] != 'n')
            continue;
        content = world_read(entry->d_name);
        at = content.data == NULL ? NULL : strstr(content.data, "\"a-b\"");
        if (at != NULL) {
            at[2] = byte;
            world_write(entry->d_name, content.data, content.size);
            found = true;
        }
        text_free(&content);
    }
    closedir(dir);
    return found;
}

static void validator_of_a_file_is_sent_unchanged_or_not_at_all(void)
{
    static const char bytes[] = "_\r\x0b\t \"\x7f\x01";

    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        world_open(NULL);
        partial_begin("ETag: \"a-b\"\r\n");
        CHECK(meta_change(bytes[i]));
        CHECK(partial_is_resumed("\"a\r") == (i == 0));
        world_close();
    }
}

/* The target of a redirect, with each byte at each position. */
static void location_is_followed_unchanged_or_not_at_all(void)
{
    static const char *const forms[] = {"/p%cX-Injected:1", "?q=%cX-Injected:1",
                                        "//127.0.0.1%c:%d/", "%c/x"};

    for (int i = 0; i < 4 * 255; i++) {
        char byte = (char)(i / 4 + 1);
        nymbl_transfer *transfer;
        char location[128], header[192];
        peer peer = {.fd = -1};
        request request;

        if (byte == '\n' || (byte == '#' && i % 4 < 2))
            continue; /* a line ending, or a fragment, which is removed */
        if (test_failed())
            return;
        world_open(NULL);
        transfer = start_download(NULL);
        take(&peer, transfer);
        snprintf(location, sizeof(location), forms[i % 4], byte, world.port);
        snprintf(header, sizeof(header), "Location: %s\r\n", location);
        peer_respond(&peer, 302, header, "");
        if (await(&peer, transfer)) {
            peer_read(&peer, &request);
            check_request(&request, "\nX-Injected");
            if (test_failed())
                printf("for byte %d in %s\n", (unsigned char)byte,
                       forms[i % 4]);
            request_free(&request);
        }
        nymbl_transfer_free(transfer);
        peer_close(&peer);
        world_close();
    }
}

static void next_link_is_followed_unchanged_or_not_at_all(void)
{
    world_open(NULL);
    for (int byte = 1; byte < 256 && !test_failed(); byte++) {
        nymbl_list_options options = {0};
        nymbl_transfer *transfer = NULL;
        peer peer = {.fd = -1};
        request request;
        char link[64];

        snprintf(link, sizeof(link), "?q=%cX-Injected:1", byte);
        options.next_link = link;
        if (byte == '#' ||
            nymbl_list_start(&transfer, world.engine, world.client, "tok", "7",
                             &options, NULL) < 0)
            continue;
        REQUIRE(await(&peer, transfer));
        peer_read(&peer, &request);
        check_request(&request, "\nX-Injected");
        request_free(&request);
        nymbl_transfer_free(transfer);
        peer_close(&peer);
    }
    world_close();
}

/* ---- uploads on connections that break ---- */

/* Answer an upload; `peer` gets its connection. */
static void upload_answer(peer *peer, const char *headers)
{
    request request;

    peer_accept(peer); /* a new connection for each upload */
    peer_read(peer, &request);
    CHECK(!request.cut);
    request_free(&request);
    peer_respond(peer, 201, headers, "{\"id\":1}");
}

/* The previous upload's connection closes a few milliseconds after its
 * response: just before or during the next upload. */
static void server_that_closes_early_leaves_no_outcome_unknown(void)
{
    peer peers[2] = {{.fd = -1}, {.fd = -1}};
    nymbl_body *body;

    world_open(NULL);
    body = body_of("%PDF-1.7", 8);
    for (int i = 0; i < 60 && !test_failed(); i++) {
        nymbl_transfer *transfer;
        nymbl_error err = {0};

        if (i % 3 == 0)
            peer_close(&peers[i % 2]);
        transfer = start_upload(body);
        for (int j = 0; j < i % 7; j++)
            nymbl_engine_pump(world.engine, 0);
        if (i % 2 == 0)
            peer_close(&peers[(i + 1) % 2]);
        else
            peer_reset(&peers[(i + 1) % 2]);
        peer_close(&peers[i % 2]);
        upload_answer(&peers[i % 2], i % 5 == 0 ? "Connection: close\r\n" : "");
        if (!CHECK(ended(transfer, &err) == NYMBL_OK))
            printf("%s in upload %d\n", nymbl_kind_name(err.kind), i);
        CHECK(!err.outcome_unknown);
        nymbl_transfer_free(transfer);
    }
    peer_close(&peers[0]);
    peer_close(&peers[1]);
    nymbl_body_free(body);
    world_close();
}

/* An upload uses no idle connection, but a retryable call may reuse an upload's
 * connection. Many of them do not accumulate. */
static void upload_leaves_its_connection_to_others(void)
{
    request request;
    nymbl_transfer *transfer;
    nymbl_body *body;
    peer peers[20];
    int served = -1;

    world_open(NULL);
    body = body_of("%PDF-1.7", 8);
    for (int i = 0; i < 20; i++) {
        transfer = start_upload(body);
        upload_answer(&peers[i], "");
        CHECK(ended(transfer, NULL) == NYMBL_OK);
        nymbl_transfer_free(transfer);
        CHECK(sockets_to(world.port) <= 5);
    }
    for (int j = 0; j < 6; j++) {
        transfer = start_get();
        for (int i = 0; i < 5000 && served < 0; i++) {
            for (int k = 0; k < 20 && served < 0; k++) {
                if (peer_has_bytes(&peers[k]))
                    served = k;
            }
            world_step();
        }
        REQUIRE(served >= 0);
        CHECK(!peer_waits());
        peer_read(&peers[served], &request);
        request_free(&request);
        peer_respond(&peers[served], 200, "", "{}");
        CHECK(ended(transfer, NULL) == NYMBL_OK);
        nymbl_transfer_free(transfer);
        served = -1;
    }
    for (int i = 0; i < 20; i++)
        peer_close(&peers[i]);
    nymbl_body_free(body);
    world_close();
}

/* ---- options that libcurl would reject only during a call ---- */

static void check_option(const nymbl_client_options *given, nymbl_kind kind,
                         const char *reason)
{
    nymbl_client_options options = *given;
    nymbl_client *client = NULL;
    nymbl_error err = {0};

    options.base_url = "https://api.example.org";
    options.api_key = "k";
    if (!CHECK(nymbl_client_new(&client, &options, &err) == kind))
        printf("for proxy %s, file %s, path %s\n", options.proxy,
               options.ca_file, options.ca_path);
    CHECK_TEXT(err.reason, reason);
    CHECK((client != NULL) == (kind == NYMBL_OK));
    nymbl_client_free(client);
}

static void proxy_that_libcurl_cannot_use_is_misuse(void)
{
    static const char *const good[] = {
        "",
        "proxy",
        "proxy:3128",
        "127.0.0.1",
        "[::1]:3128",
        "http://proxy",
        "HTTP://proxy:3128/",
        "https://proxy:443",
        "socks://proxy",
        "socks4://proxy",
        "socks4a://proxy",
        "socks5://user:word@proxy:1080",
        "Socks5H://proxy",
        "http://user:w%40rd@proxy:3128",
    };
    static const char *const bad[] = {
        "ftp://proxy",
        "htpp://proxy",
        "socks6://proxy",
        "socks5hh://proxy",
        "file:///x",
        "unix:///run/x",
        "http://",
        "http://a b",
        "http://proxy:99999",
        "http://proxy:x",
        " ",
        "://proxy",
        "http://proxy\r\nX: y",
        "h2://proxy",
        "wss://proxy",
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        check_option(&(nymbl_client_options){.proxy = good[i]}, NYMBL_OK, NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        check_option(&(nymbl_client_options){.proxy = bad[i]}, NYMBL_MISUSE,
                     "proxy");
}

/* Returns the option that is refused, or NULL. */
static const char *refused_option(nymbl_client_options options)
{
    nymbl_client *client = NULL;
    nymbl_error err = {0};
    nymbl_kind kind;

    if (options.base_url == NULL)
        options.base_url = "https://api.example.org";
    kind = nymbl_client_new(&client, &options, &err);
    CHECK(kind == NYMBL_OK || kind == NYMBL_MISUSE);
    CHECK((client != NULL) == (kind == NYMBL_OK));
    nymbl_client_free(client);
    return err.reason;
}

static void option_that_makes_no_sense_is_misuse(void)
{
#define TOKEN_URL .token_url = "https://a.b/t"
    static const struct {
        const char *name;
        nymbl_client_options options;
    } bad[] = {
        {"base_url", {.base_url = "api.example.org", .api_key = "k"}},
        {"base_url", {.base_url = "http://a.b", .api_key = "k"}},
        {"api_key", {.api_key = NULL}},
        {"api_key", {.api_key = ""}},
        {"api_key", {.api_key = "k\n"}},
        {"token_url", {.api_key = "k", .token_url = "http://a.b/t"}},
        {"client_id", {.api_key = "k", TOKEN_URL, .client_secret = "s"}},
        {"client_id",
         {.api_key = "k", TOKEN_URL, .client_id = "\r", .client_secret = "s"}},
        {"client_secret", {.api_key = "k", TOKEN_URL, .client_id = "i"}},
        {"client_secret",
         {.api_key = "k",
          TOKEN_URL,
          .client_id = "i",
          .client_secret = "\x7f"}},
        {"scope", {.api_key = "k", .scope = "a\tb"}},
        {"user_agent", {.api_key = "k", .user_agent = "a\nb: c"}},
        {"connect_timeout", {.api_key = "k", .connect_timeout = -1}},
        {"connect_timeout", {.api_key = "k", .connect_timeout = NAN}},
        {"stall_timeout", {.api_key = "k", .stall_timeout = -0.1}},
        {"stall_timeout", {.api_key = "k", .stall_timeout = NAN}},
        {"max_upload_bytes", {.api_key = "k", .max_upload_bytes = -1}},
        {"max_connections", {.api_key = "k", .max_connections = -1}},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK_TEXT(refused_option(bad[i].options), bad[i].name);
    CHECK_TEXT(refused_option((nymbl_client_options){.api_key = "k"}), NULL);
}

static void unreadable_certificates_are_reported_at_once(void)
{
    char list[200];

    world_open(NULL);
    world_write("ca.pem", "x", 1);
    check_option(&(nymbl_client_options){.ca_file = world_path("ca.pem")},
                 NYMBL_OK, NULL);
    check_option(&(nymbl_client_options){.ca_path = world.dir}, NYMBL_OK, NULL);
    snprintf(list, sizeof(list), "/nonexistent:%s", world.dir);
    check_option(&(nymbl_client_options){.ca_path = list}, NYMBL_OK, NULL);
    check_option(&(nymbl_client_options){.ca_file = "/nonexistent/ca.pem"},
                 NYMBL_TLS, "ca_file");
    check_option(&(nymbl_client_options){.ca_file = world.dir}, NYMBL_TLS,
                 "ca_file");
    check_option(&(nymbl_client_options){.ca_file = ""}, NYMBL_TLS, "ca_file");
    check_option(&(nymbl_client_options){.ca_path = "/nonexistent"}, NYMBL_TLS,
                 "ca_path");
    check_option(&(nymbl_client_options){.ca_path = world_path("ca.pem")},
                 NYMBL_TLS, "ca_path");
    check_option(&(nymbl_client_options){.ca_path = "/nonexistent:/nowhere"},
                 NYMBL_TLS, "ca_path");
    check_option(&(nymbl_client_options){.ca_path = ""}, NYMBL_TLS, "ca_path");
    if (geteuid() != 0) { /* root may read everything */
        chmod(world_path("ca.pem"), 0);
        check_option(&(nymbl_client_options){.ca_file = world_path("ca.pem")},
                     NYMBL_TLS, "ca_file");
    }
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(folded_first_line_is_refused),
        TEST(folded_first_line_of_a_redirects_target_is_refused),
        TEST(connection_serves_many_exchanges),
        TEST(malformed_responses_are_refused),
        TEST(coding_of_the_transfer_is_refused_as_such),
        TEST(socket_of_other_code_is_never_shut_down),
        TEST(validator_of_a_response_is_sent_unchanged_or_not_at_all),
        TEST(validator_of_a_file_is_sent_unchanged_or_not_at_all),
        TEST(location_is_followed_unchanged_or_not_at_all),
        TEST(next_link_is_followed_unchanged_or_not_at_all),
        TEST(server_that_closes_early_leaves_no_outcome_unknown),
        TEST(upload_leaves_its_connection_to_others),
        TEST(proxy_that_libcurl_cannot_use_is_misuse),
        TEST(option_that_makes_no_sense_is_misuse),
        TEST(unreadable_certificates_are_reported_at_once),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
