/* SPDX-License-Identifier: MIT */
/* Tests that need TLS: which server receives credentials, and where a response
 * ends. The peer is OpenSSL with a certificate that the test creates. */
#include "tls_peer.h"

#include <signal.h>
#include <sys/socket.h>
#include <time.h>

/* Serve a started transfer up to its request. */
static void serve(peer *peer, request *request)
{
    tls_accept(peer);
    peer_read(peer, request);
    CHECK(!request->cut);
}

/* ---- trust ---- */

static void exchange_succeeds_over_tls(void)
{
    nymbl_transfer *transfer;
    request request;
    peer peer;

    tls_open();
    transfer = start_get();
    serve(&peer, &request);
    CHECK_TEXT(request_field(&request, "x-api-key"), "key-of-test");
    peer_respond(&peer, 200, "", "{}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    request_free(&request);
    tls_end(&peer, true);
    tls_close();
}

/* What nymbl_transfer_peer() returns after a request whose response has
 * `headers`. */
static nymbl_peer peer_of(bool inspect, const char *headers)
{
    const nymbl_segment path[] = {{"Patients", NULL}, {NULL, NULL}};
    nymbl_request wanted = {.path = path, .inspect = inspect};
    nymbl_transfer *transfer;
    nymbl_peer found;
    request request;
    peer peer;

    REQUIRE(nymbl_request_start(&transfer, world.engine, world.client, "t",
                                &wanted, NULL) == NYMBL_OK);
    serve(&peer, &request);
    nymbl_transfer_peer(transfer, &found);
    CHECK(found.has_certificate == inspect && !found.has_date);
    peer_respond(&peer, 403, headers, "{}");
    CHECK_NUMBER(ended(transfer, NULL), NYMBL_FORBIDDEN);
    nymbl_transfer_peer(transfer, &found);
    nymbl_transfer_free(transfer);
    request_free(&request);
    tls_end(&peer, true);
    world_settle();
    return found;
}

static void certificate_and_clock_are_recorded_if_requested(void)
{
    nymbl_peer peer;
    char header[64];
    time_t ahead = time(NULL) + 500;

    tls_open_named("IP:127.0.0.1", -100, 200000);
    strftime(header, sizeof(header), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n",
             gmtime(&ahead));
    peer = peer_of(true, header);
    CHECK(peer.has_certificate && peer.certificate_lifetime <= 200000 &&
          peer.certificate_lifetime > 199900);
    CHECK(peer.has_date && peer.clock_skew >= -500 && peer.clock_skew < -400);
    peer = peer_of(true, "");
    CHECK(peer.has_certificate && !peer.has_date);
    peer = peer_of(true, "Date: today\r\n");
    CHECK(peer.has_certificate && !peer.has_date);
    peer = peer_of(false, header);
    CHECK(!peer.has_certificate && !peer.has_date);
    tls_close();
}

static void check_untrusted(const char *name, long from, long to,
                            bool system_ca, const char *reason)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    peer peer;

    tls_open_named(name, from, to);
    if (system_ca) {
        nymbl_client_options options = {.api_key = "k"};
        char url[64];

        snprintf(url, sizeof(url), "https://127.0.0.1:%d/v1", world.port);
        options.base_url = url;
        nymbl_client_free(world.client);
        REQUIRE(nymbl_client_new(&world.client, &options, NULL) == NYMBL_OK);
    }
    transfer = start_delete();
    tls_accept(&peer);
    for (int i = 0; i < 2000 && !peer.eof &&
                    nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN;
         i++) {
        peer_take(&peer);
        world_step();
    }
    CHECK_NUMBER(ended(transfer, &err), NYMBL_TLS);
    CHECK_TEXT(err.reason, reason);
    CHECK(!err.outcome_unknown);
    CHECK(!counts_of(transfer).sent);
    CHECK_NUMBER((long long)peer.in.size, 0);
    nymbl_transfer_free(transfer);
    tls_end(&peer, false);
    tls_close();
}

static void peers_that_are_not_trusted_get_nothing(void)
{
    check_untrusted("IP:127.0.0.2", -100, 10000, false, "host_name");
    check_untrusted("DNS:localhost", -100, 10000, false, "host_name");
    check_untrusted("IP:127.0.0.1", -200, -100, false, "certificate_expired");
    check_untrusted("IP:127.0.0.1", 1000, 2000, false,
                    "certificate_not_yet_valid");
    check_untrusted("IP:127.0.0.1", -100, 10000, true,
                    "certificate_self_signed");
}

/* ---- redirects: the second server ---- */

static void redirect_to_another_origin_sends_no_credentials_or_headers(void)
{
    const nymbl_segment path[] = {
        {"Patients", "7"}, {"Documents", "9"}, {"$value", NULL}, {NULL, NULL}};
    const nymbl_pair headers[] = {{"x-request-id", "r1"}, {NULL, NULL}};
    const nymbl_download_options options = {.content_type = "x/y"};
    const nymbl_request wanted = {.expected = NYMBL_EXPECT_CONTENT,
                                  .path = path,
                                  .headers = headers,
                                  .download = &options};
    nymbl_transfer *transfer;
    request request;
    char header[128];
    text got = {0};
    peer first, second, third;
    int listener, port;

    tls_open();
    listener = listener_open(&port, 8);
    REQUIRE(nymbl_request_start(&transfer, world.engine, world.client, "tok",
                                &wanted, NULL) == NYMBL_OK);
    serve(&first, &request);
    CHECK_TEXT(request_field(&request, "Authorization"), "Bearer tok");
    CHECK_TEXT(request_field(&request, "x-request-id"), "r1");
    request_free(&request);
    snprintf(header, sizeof(header), "Location: https://127.0.0.1:%d/x?y\r\n",
             port);
    peer_respond(&first, 302, header, "");
    peer_accept_at(&second, listener);
    tls_begin(&second);
    peer_read(&second, &request);
    CHECK(request_begins(&request, "GET /x?y HTTP/1.1\r\n"));
    CHECK(request_field(&request, "Authorization") == NULL);
    CHECK(request_field(&request, "x-api-key") == NULL);
    CHECK(request_field(&request, "x-request-id") == NULL);
    CHECK(request_field(&request, "Cookie") == NULL);
    CHECK(request_field(&request, "Referer") == NULL);
    CHECK(strstr(request.head.data, "key-of-test") == NULL);
    CHECK(strstr(request.head.data, "tok") == NULL);
    request_free(&request);
    /* and back to the first origin: still without credentials */
    snprintf(header, sizeof(header), "Location: https://127.0.0.1:%d/back\r\n",
             world.port);
    peer_respond(&second, 307, header, "");
    for (int i = 0; i < 5000 && !peer_waits() && !peer_take(&first); i++)
        world_step();
    if (peer_waits())
        tls_accept(&third);
    else
        third = first;
    peer_read(&third, &request);
    CHECK(request_begins(&request, "GET /back HTTP/1.1\r\n"));
    CHECK(request_field(&request, "Authorization") == NULL);
    CHECK(request_field(&request, "x-api-key") == NULL);
    CHECK(request_field(&request, "x-request-id") == NULL);
    request_free(&request);
    peer_respond(&third, 200, "", "bytes");
    CHECK(read_all(transfer, &got, NULL) == NYMBL_DONE);
    CHECK_TEXT(got.data, "bytes");
    text_free(&got);
    nymbl_transfer_free(transfer);
    if (third.fd != first.fd)
        tls_end(&first, true);
    tls_end(&second, true);
    tls_end(&third, true);
    close(listener);
    tls_close();
}

static void redirect_from_https_to_http_is_refused(void)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    request request;
    char header[128];
    peer peer;

    tls_open();
    transfer = start_download(NULL);
    serve(&peer, &request);
    snprintf(header, sizeof(header), "Location: http://127.0.0.1:%d/x\r\n",
             world.port);
    peer_respond(&peer, 302, header, "");
    CHECK(ended(transfer, &err) == NYMBL_REDIRECT);
    CHECK_TEXT(err.reason, "https_downgrade");
    world_settle();
    CHECK(!peer_waits());
    nymbl_transfer_free(transfer);
    request_free(&request);
    tls_end(&peer, true);
    tls_close();
}

/* ---- the end of a response ---- */

static void document_without_length(bool notify, nymbl_kind kind)
{
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    request request;
    text got = {0};
    peer peer;

    tls_open();
    transfer = start_download(NULL);
    serve(&peer, &request);
    peer_say(&peer, "HTTP/1.1 200 OK\r\n\r\n0123456789");
    world_settle();
    tls_end(&peer, notify);
    CHECK_NUMBER(read_all(transfer, &got, &err), kind);
    nymbl_transfer_free(transfer);
    request_free(&request);
    text_free(&got);
    tls_close();
}

static void close_notify_is_the_end_and_a_plain_close_is_not(void)
{
    document_without_length(true, NYMBL_DONE);
    document_without_length(false, NYMBL_TRUNCATED);
}

/* Unsolicited bytes on a connection are not the next request's response: in the
 * TLS record of the previous response, or in a record of their own, soon or
 * late. */
static void check_stray_response(int how)
{
    static const char stray[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"x\":1}";
    nymbl_transfer *transfer;
    request request;
    char whole[200];
    size_t size;
    peer old, fresh;

    tls_open();
    transfer = start_get();
    serve(&old, &request);
    request_free(&request);
    snprintf(whole, sizeof(whole),
             "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}%s",
             how == 0 ? stray : "");
    peer_send_some(&old, whole, strlen(whole));
    if (how == 1)
        peer_send_some(&old, stray, sizeof(stray) - 1);
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    if (how == 2)
        peer_send_some(&old, stray, sizeof(stray) - 1);
    usleep(1000);
    transfer = start_get();
    for (int i = 0; i < 5000 && !peer_waits() &&
                    nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN;
         i++)
        world_step();
    if (CHECK(peer_waits())) {
        serve(&fresh, &request);
        peer_respond(&fresh, 200, "", "{\"y\":1}");
        CHECK(ended(transfer, NULL) == NYMBL_OK);
        request_free(&request);
        tls_end(&fresh, true);
    }
    CHECK_TEXT(nymbl_transfer_body(transfer, &size), "{\"y\":1}");
    nymbl_transfer_free(transfer);
    tls_end(&old, true);
    tls_close();
}

static void bytes_in_the_previous_record_are_no_response(void)
{
    check_stray_response(0);
}

static void bytes_in_the_next_record_are_no_response(void)
{
    check_stray_response(1);
}

static void bytes_that_arrive_later_are_no_response(void)
{
    check_stray_response(2);
}

/* libcurl may accept a head that breaks off as complete, and keep the
 * connection although it has read the connection's end. */
static void connection_of_a_head_that_breaks_off_is_not_reused(void)
{
    static const char *const heads[] = {"HTTP/1.1 200 OK\r\nX: y\r\n",
                                        "HTTP/1.1 200 OK\r\nX: y", "HTTP/1.1"};

    for (int i = 0; i < 3 * 2; i++) {
        nymbl_transfer *transfer;
        request request;
        peer old, fresh;

        tls_open();
        transfer = start_get();
        serve(&old, &request);
        request_free(&request);
        peer_respond(&old, 200, "", "{}"); /* the connection was used before */
        CHECK(ended(transfer, NULL) == NYMBL_OK);
        nymbl_transfer_free(transfer);
        transfer = start_get();
        peer_read(&old, &request);
        request_free(&request);
        peer_send_some(&old, heads[i / 2], strlen(heads[i / 2]));
        SSL_shutdown(old.tls);
        if (i % 2 == 0)
            shutdown(old.fd, SHUT_WR);
        CHECK(ended(transfer, NULL) < 0);
        nymbl_transfer_free(transfer);
        while (peer_waits()) { /* libcurl's second try, which was refused */
            peer_accept(&fresh);
            peer_close(&fresh);
        }
        transfer = start_get();
        for (int j = 0; j < 5000 && !peer_waits() &&
                        nymbl_transfer_result(transfer, NULL) == NYMBL_AGAIN;
             j++)
            world_step();
        if (CHECK(peer_waits())) {
            serve(&fresh, &request);
            peer_respond(&fresh, 200, "", "{}");
            CHECK(ended(transfer, NULL) == NYMBL_OK);
            request_free(&request);
            tls_end(&fresh, true);
        }
        nymbl_transfer_free(transfer);
        tls_end(&old, false);
        tls_close();
    }
}

/* CURLOPT_NOSIGNAL leaves SIGPIPE to us: a closed connection must not end the
 * process. */
static void closed_connection_raises_no_signal(void)
{
    char *data = pattern(8 << 20);
    nymbl_transfer *transfer;
    nymbl_body *body;
    nymbl_error err = {0};
    peer peer;

    tls_open();
    body = body_of(data, 8 << 20);
    transfer = start_upload(body);
    tls_accept(&peer);
    peer_await(&peer, 100000);
    SSL_free(peer.tls);
    peer_reset(&peer);
    CHECK_NUMBER(ended(transfer, &err), NYMBL_NETWORK);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    free(data);
    tls_close();
}

/* ---- resumption ---- */

/* Whether the server resumed the TLS session of an upload, which uses a new
 * connection. */
static bool upload_resumes(nymbl_body *body)
{
    nymbl_transfer *transfer = start_upload(body);
    request request;
    bool resumed;
    peer peer;

    serve(&peer, &request);
    resumed = SSL_session_reused(peer.tls) == 1;
    CHECK_TEXT(request_field(&request, "x-api-key"), "key-of-test");
    peer_respond(&peer, 201, "", "{\"id\":1}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    nymbl_transfer_free(transfer);
    request_free(&request);
    tls_end(&peer, true);
    return resumed;
}

static void check_resumption(int version)
{
    char other[] = "/tmp/nymbl-test-ca-XXXXXX";
    nymbl_client_options options = {.api_key = "key-of-test", .ca_file = other};
    char url[64], pem[4096];
    nymbl_body *body;
    size_t size;
    FILE *file;
    int fd;

    tls_open();
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    body = body_of("%PDF-1.7", 8);
    CHECK(!upload_resumes(body));
    for (int i = 0; i < 5; i++)
        CHECK(upload_resumes(body));
    /* a client with another CA file shares no session */
    file = fopen(ca_file, "r");
    REQUIRE(file != NULL);
    size = fread(pem, 1, sizeof(pem), file);
    fclose(file);
    fd = mkstemp(other);
    REQUIRE(fd >= 0 && write(fd, pem, size) == (ssize_t)size);
    close(fd);
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/v1", world.port);
    options.base_url = url;
    nymbl_client_free(world.client);
    REQUIRE(nymbl_client_new(&world.client, &options, NULL) == NYMBL_OK);
    CHECK(!upload_resumes(body));
    CHECK(upload_resumes(body));
    unlink(other);
    nymbl_body_free(body);
    tls_close();
}

static void uploads_resume_the_session_of_tls_1_2(void)
{
    check_resumption(TLS1_2_VERSION);
}

static void uploads_resume_the_session_of_tls_1_3(void)
{
    check_resumption(TLS1_3_VERSION);
}

/* ---- a proxy ---- */

/* The response heads of a tunnel and of the service belong to one exchange. */
static void tunnel(const char *answer, const char *response, nymbl_kind kind)
{
    nymbl_client_options options = {.base_url = "https://127.0.0.1:9/v1",
                                    .api_key = "key-of-test",
                                    .ca_file = ca_file};
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    request request;
    char proxy[64];
    peer peer;

    tls_open();
    snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%d", world.port);
    options.proxy = proxy;
    nymbl_client_free(world.client);
    REQUIRE(nymbl_client_new(&world.client, &options, NULL) == NYMBL_OK);
    for (int i = 0; i < 2; i++) { /* possibly on one handle */
        transfer = start_get();
        peer_accept(&peer);
        peer_read(&peer, &request);
        CHECK(request_begins(&request, "CONNECT 127.0.0.1:9 HTTP/1.1\r\n"));
        request_free(&request);
        peer_say(&peer, answer);
        tls_begin(&peer);
        peer_read(&peer, &request);
        if (!request.cut) {
            CHECK_TEXT(request_field(&request, "x-api-key"), "key-of-test");
            peer_say(&peer, response);
        }
        request_free(&request);
        CHECK_NUMBER(ended(transfer, &err), kind);
        nymbl_transfer_free(transfer);
        tls_end(&peer, true);
        world_settle();
    }
    tls_close();
}

static void head_after_a_tunnels_is_checked_too(void)
{
    static const char good[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    static const char bad[] =
        "HTTP/1.1 200 OK\r\n A: x\r\nContent-Length: 2\r\n\r\n{}";

    tunnel("HTTP/1.1 200 OK\r\n\r\n", good, NYMBL_OK);
    tunnel("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", good, NYMBL_OK);
    tunnel("HTTP/1.1 200 OK\r\n\r\n", bad, NYMBL_PROTOCOL);
    tunnel("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", bad, NYMBL_PROTOCOL);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(exchange_succeeds_over_tls),
        TEST(certificate_and_clock_are_recorded_if_requested),
        TEST(peers_that_are_not_trusted_get_nothing),
        TEST(redirect_to_another_origin_sends_no_credentials_or_headers),
        TEST(redirect_from_https_to_http_is_refused),
        TEST(close_notify_is_the_end_and_a_plain_close_is_not),
        TEST(bytes_in_the_previous_record_are_no_response),
        TEST(bytes_in_the_next_record_are_no_response),
        TEST(bytes_that_arrive_later_are_no_response),
        TEST(connection_of_a_head_that_breaks_off_is_not_reused),
        TEST(closed_connection_raises_no_signal),
        TEST(uploads_resume_the_session_of_tls_1_2),
        TEST(uploads_resume_the_session_of_tls_1_3),
        TEST(head_after_a_tunnels_is_checked_too),
    };

    /* The peer writes from this thread, and the engine from a thread in which
     * the signal is blocked. */
    if (getenv("NYMBL_TEST_THREAD") != NULL)
        signal(SIGPIPE, SIG_IGN);
    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
