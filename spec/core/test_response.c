/* SPDX-License-Identifier: MIT */
/* Heads, listings and redirects: the limits of what a server can make the
 * client do. */
#include "peer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define MEGABYTE (1024 * 1024)

/* Send endless lines until the client closes the connection. */
static void flood(peer *peer, const char *line)
{
    for (int i = 0; i < 40000 && !peer->broken && !peer->eof; i++) {
        ssize_t sent = peer_send_some(peer, line, strlen(line));

        if (sent < 0 || i % 50 == 0) {
            world_step();
            peer_take(peer);
        }
    }
}

static void check_flood(const char *first, const char *line, nymbl_kind kind,
                        const char *reason)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_get(), &peer);
    peer_say(&peer, first);
    flood(&peer, line);
    CHECK_NUMBER(ended(transfer, &err), kind);
    CHECK_TEXT(err.reason, reason);
    CHECK_NUMBER(sockets_to(world.port), 0);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

static void heads_have_a_limit(void)
{
    check_flood("HTTP/1.1 200 OK\r\n", "X-Pad: 0123456789012345678901234\r\n",
                NYMBL_PROTOCOL, "head_too_long");
    check_flood("", "HTTP/1.1 100 Continue\r\n\r\n", NYMBL_PROTOCOL,
                "head_too_long");
    check_flood("", "HTTP/1.1 103 Hint\r\nLink: </x>\r\n\r\n", NYMBL_PROTOCOL,
                "head_too_long");
}

static void head_of_one_endless_line_is_not_out_of_memory(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_get(), &peer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nX-Pad: ");
    flood(&peer, "0123456789012345678901234567890123456789012345678901234567");
    CHECK_NUMBER(ended(transfer, &err), NYMBL_PROTOCOL);
    CHECK_TEXT(err.reason, "head_too_long");
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

static void trailers_have_a_limit(void)
{
    check_flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                "2\r\n{}\r\n0\r\n",
                "X-Pad: 0123456789012345678901234\r\n", NYMBL_PROTOCOL,
                "head_too_long");
}

static void garbage_is_refused(void)
{
    static const char *const responses[] = {
        "hello\r\n\r\n",
        "HTTP/1.1 999999 OK\r\n\r\n",
        "HTTP/1.1 xyz\r\n\r\n",
        "\r\n\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxxxxx",
    };

    for (size_t i = 0; i < sizeof(responses) / sizeof(responses[0]); i++) {
        nymbl_transfer *transfer;
        nymbl_error err = {0};
        nymbl_kind kind;
        peer peer;

        world_open(NULL);
        transfer = accept_request(start_get(), &peer);
        peer_say(&peer, responses[i]);
        peer_close(&peer);
        kind = ended(transfer, &err);
        if (!CHECK(kind == NYMBL_PROTOCOL || kind == NYMBL_NETWORK))
            printf("%s for: %s\n", nymbl_kind_name(kind), responses[i]);
        nymbl_transfer_free(transfer);
        world_close();
    }
}

static void head_that_breaks_off_is_refused(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_delete(), &peer);
    peer_say(&peer, "HTTP/1.1 204 No Content\r\nX: y\r\n");
    peer_close(&peer);
    CHECK(ended(transfer, &err) == NYMBL_NETWORK);
    CHECK(err.outcome_unknown);
    nymbl_transfer_free(transfer);
    world_close();
}

/* A longer error body is cut off and its status stays; a longer success is
 * refused. */
static void bodies_in_memory_have_a_limit(void)
{
    char *data = calloc(1, 9 * MEGABYTE);
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    size_t size;
    peer peer;

    memset(data, 'x', 9 * MEGABYTE);
    world_open(NULL);
    transfer = accept_request(start_get(), &peer);
    peer_say(&peer, "HTTP/1.1 404 None\r\nContent-Length: 9437184\r\n\r\n");
    peer_send(&peer, data, MEGABYTE);
    CHECK(ended(transfer, &err) == NYMBL_NOT_FOUND);
    CHECK_NUMBER(err.status, 404);
    nymbl_transfer_body(transfer, &size);
    CHECK(size <= 64 * 1024);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    transfer = accept_request(start_get(), &peer);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "900000\r\n");
    peer_send(&peer, data, 9 * MEGABYTE);
    CHECK(ended(transfer, &err) == NYMBL_PROTOCOL);
    CHECK_TEXT(err.reason, "response_too_long");
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
    free(data);
}

/* Unsolicited bytes on a connection are not the next request's response. */
static void check_unsolicited_bytes(void)
{
    nymbl_transfer *transfer;
    request request;
    size_t size;
    peer old, fresh;

    transfer = accept_request(start_get(), &old);
    /* the bytes must have arrived before the next request */
    CHECK(setsockopt(old.fd, IPPROTO_TCP, TCP_NODELAY, &(int){1},
                     sizeof(int)) == 0);
    peer_respond(&old, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    transfer = start_get(); /* the connection is used again */
    peer_read(&old, &request);
    request_free(&request);
    peer_respond(&old, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    peer_send_some(&old,
                   "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"x\":1}", 45);
    usleep(1000);
    transfer = start_get();
    for (int i = 0; i < 5000 && !peer_waits(); i++)
        world_step();
    if (CHECK(peer_waits())) {
        peer_accept(&fresh);
        peer_read(&fresh, &request);
        peer_respond(&fresh, 200, "", "{\"y\":1}");
        request_free(&request);
        CHECK(ended(transfer, NULL) == NYMBL_OK);
        peer_close(&fresh);
    }
    CHECK_TEXT(nymbl_transfer_body(transfer, &size), "{\"y\":1}");
    nymbl_transfer_free(transfer);
    peer_close(&old);
}

static void unsolicited_bytes_are_no_response(void)
{
    world_open(NULL);
    check_unsolicited_bytes();
    world_close();
}

/* Let the world's peer listen, and its client connect, by IPv6. */
static bool world_turn_to_ipv6(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6,
                                   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t length = sizeof(address);
    char url[64];
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return false;
    if (bind(fd, (struct sockaddr *)&address, length) < 0) {
        close(fd);
        return false;
    }
    REQUIRE(listen(fd, 64) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    close(world.listener);
    world.listener = fd;
    world.port = ntohs(address.sin6_port);
    snprintf(url, sizeof(url), "http://[::1]:%d/v1", world.port);
    nymbl_client_free(world.client);
    REQUIRE(nymbl_client_new(&world.client,
                             &(nymbl_client_options){.base_url = url,
                                                     .api_key = "key-of-test",
                                                     .allow_http = true},
                             NULL) == NYMBL_OK);
    return true;
}

static void unsolicited_bytes_are_no_response_by_ipv6_either(void)
{
    world_open(NULL);
    if (world_turn_to_ipv6())
        check_unsolicited_bytes();
    else
        test_skip("there is no IPv6");
    world_close();
}

/* More than an hour, or than libcurl's poll can count. */
static void timeout_has_no_maximum(void)
{
    static const double timeouts[] = {3601, 1e7, 1e300};

    world_open(NULL);
    for (size_t i = 0; i < sizeof(timeouts) / sizeof(timeouts[0]); i++) {
        peer peer;
        nymbl_transfer *transfer = accept_request(start_get(), &peer);

        peer_respond(&peer, 200, "", "{}");
        while (nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN)
            CHECK(nymbl_transfer_wait(transfer, timeouts[i]) == NYMBL_OK);
        nymbl_transfer_free(transfer);
        peer_close(&peer);
    }
    world_close();
}

static void quota_is_distinguished_from_rate(void)
{
    nymbl_transfer *transfer;
    nymbl_error err;
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_get(), &peer);
    peer_respond(&peer, 429,
                 "x-amzn-ErrorType: LimitExceededException:http://x\r\n", "{}");
    CHECK(ended(transfer, &err) == NYMBL_QUOTA);
    CHECK(err.retry_after < 0);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

/* ---- listings ---- */

static void listing_escapes_its_query(void)
{
    nymbl_list_options options = {.filter = "a eq 'x&y=1#\xc3\xa9+ '",
                                  .select = "id,file_name",
                                  .orderby = "id desc",
                                  .top = 100,
                                  .skip = 7,
                                  .count = true};
    nymbl_transfer *transfer;
    request request;
    peer peer;

    world_open(NULL);
    transfer = start_list(&options);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(request_begins(
        &request, "GET /v1/Patients(7)/Documents?$filter=a%20eq%20%27x%26y%3D1"
                  "%23%C3%A9%2B%20%27&$select=id%2Cfile_name&$orderby=id%20"
                  "desc&$top=100&$skip=7&$count=true HTTP/1.1\r\n"));
    peer_respond(&peer, 200, "", "{\"value\":[]}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    request_free(&request);
    peer_close(&peer);
    world_close();
}

static void next_link_stays_with_the_service(void)
{
    static const char *const bad[] = {
        "http://127.0.0.1:1/v1/x",   "//evil.example/x",
        "https://127.0.0.1/x",       "http://u:p@127.0.0.1:80/x",
        "ftp://127.0.0.1/x",         "javascript:alert(1)",
        "http://127.0.0.2:65000/v1", "file:///etc/passwd",
    };
    nymbl_list_options options = {.next_link = "Documents?$skip=2#frag"};
    nymbl_transfer *transfer;
    nymbl_error err;
    request request;
    peer peer;

    world_open(NULL);
    transfer = start_list(&options);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(request_begins(&request,
                         "GET /v1/Patients(7)/Documents?$skip=2 HTTP/1.1\r\n"));
    nymbl_transfer_free(transfer);
    request_free(&request);
    peer_close(&peer);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        options.next_link = bad[i];
        if (!CHECK(nymbl_list_start(&transfer, world.engine, world.client,
                                    "tok", "7", &options,
                                    &err) == NYMBL_REDIRECT))
            printf("for: %s\n", bad[i]);
        CHECK(transfer == NULL);
    }
    world_settle();
    CHECK(!peer_waits());
    world_close();
}

static void token_is_requested_with_a_form(void)
{
    nymbl_client_options options = {
        .client_id = "a&b", .client_secret = "c=d", .scope = "e f/g"};
    nymbl_transfer *transfer;
    nymbl_client *client;
    request request;
    size_t size;
    peer peer;

    world_open(NULL);
    client = token_client(options);
    REQUIRE(nymbl_token_start(&transfer, world.engine, client, NULL) ==
            NYMBL_OK);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(request_begins(&request, "POST /token HTTP/1.1\r\n"));
    CHECK_TEXT(request_field(&request, "Content-Type"),
               "application/x-www-form-urlencoded");
    CHECK(request_field(&request, "x-api-key") == NULL);
    CHECK(request_field(&request, "Authorization") == NULL);
    CHECK_TEXT(request.body.data,
               "grant_type=client_credentials&client_id=a%26b&"
               "client_secret=c%3Dd&scope=e%20f%2Fg");
    peer_respond(&peer, 200, "", "{\"access_token\":\"x\"}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    CHECK_TEXT(nymbl_transfer_body(transfer, &size),
               "{\"access_token\":\"x\"}");
    nymbl_transfer_free(transfer);
    nymbl_client_free(client);
    request_free(&request);
    peer_close(&peer);
    world_close();
}

/* ---- redirects ---- */

static void download_follows_a_relative_redirect(void)
{
    nymbl_transfer *transfer;
    text got = {0};
    request request;
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_download(NULL), &peer);
    peer_respond(&peer, 302, "Location: ../else/where?x=1#y\r\n", "moved");
    peer_read(&peer, &request);
    CHECK(request_begins(&request, "GET /v1/Patients(7)/else/where?x=1 HTTP"));
    CHECK_TEXT(request_field(&request, "Authorization"), "Bearer tok");
    CHECK_TEXT(request_field(&request, "x-api-key"), "key-of-test");
    peer_respond(&peer, 200, "", "bytes");
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK_TEXT(got.data, "bytes");
    nymbl_transfer_free(transfer);
    request_free(&request);
    text_free(&got);
    peer_close(&peer);
    world_close();
}

static void check_not_followed(const char *header, const char *reason)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_download(NULL), &peer);
    peer_respond(&peer, 307, header, "");
    CHECK_NUMBER(ended(transfer, &err), NYMBL_REDIRECT);
    CHECK_TEXT(err.reason, reason);
    CHECK_NUMBER(err.status, 307);
    world_settle();
    CHECK(!peer_waits());
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

static void bad_redirects_are_not_followed(void)
{
    check_not_followed("", "bad_location");
    check_not_followed("Location: http://127.0.0.1:1/other\r\n",
                       "https_downgrade");
    check_not_followed("Location: http://evil.example/\r\n", "https_downgrade");
    check_not_followed("Location: file:///etc/passwd\r\n", "https_downgrade");
    check_not_followed("Location: https://u:p@127.0.0.1/\r\n", "bad_location");
    check_not_followed("Location: gopher-x://1/\r\n", "bad_location");
}

static void redirects_have_a_limit(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    request request;
    int redirects = 0;
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_download(NULL), &peer);
    while (nymbl_transfer_result(transfer, &err) == NYMBL_AGAIN) {
        peer_respond(&peer, 301, "Location: /loop\r\n", "");
        for (int i = 0; i < 5000 && !peer_take(&peer) && !peer.eof &&
                        nymbl_transfer_result(transfer, &err) == NYMBL_AGAIN;
             i++)
            world_step();
        if (nymbl_transfer_result(transfer, &err) != NYMBL_AGAIN)
            break;
        peer_read(&peer, &request);
        request_free(&request);
        REQUIRE(++redirects < 50);
    }
    CHECK_NUMBER(err.kind, NYMBL_REDIRECT);
    CHECK_TEXT(err.reason, "too_many_redirects");
    CHECK_NUMBER(redirects, 5);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

static void only_downloads_follow_redirects(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    peer peer;

    world_open(NULL);
    transfer = accept_request(start_get(), &peer);
    peer_respond(&peer, 302, "Location: /x\r\n", "");
    CHECK(ended(transfer, &err) == NYMBL_REDIRECT);
    CHECK_TEXT(err.reason, "not_followed");
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(heads_have_a_limit),
        TEST(head_of_one_endless_line_is_not_out_of_memory),
        TEST(trailers_have_a_limit),
        TEST(garbage_is_refused),
        TEST(head_that_breaks_off_is_refused),
        TEST(bodies_in_memory_have_a_limit),
        TEST(quota_is_distinguished_from_rate),
        TEST(listing_escapes_its_query),
        TEST(next_link_stays_with_the_service),
        TEST(token_is_requested_with_a_form),
        TEST(download_follows_a_relative_redirect),
        TEST(bad_redirects_are_not_followed),
        TEST(redirects_have_a_limit),
        TEST(only_downloads_follow_redirects),
        TEST(unsolicited_bytes_are_no_response),
        TEST(unsolicited_bytes_are_no_response_by_ipv6_either),
        TEST(timeout_has_no_maximum),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
