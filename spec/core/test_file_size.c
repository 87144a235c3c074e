/* SPDX-License-Identifier: MIT */
/* Files whose size is not what stat() reports. */
#include "peer.h"

#include <sys/stat.h>

static void file_that_reports_size_0_is_read(void)
{
    FILE *name = fopen("/proc/self/comm", "r+");
    nymbl_transfer *transfer;
    nymbl_body *body;
    request request;
    peer peer;

    if (name == NULL) {
        test_skip("no /proc");
        return;
    }
    CHECK(fputs("%PDF-1.4", name) >= 0 && fclose(name) == 0);
    world_open(NULL);
    REQUIRE(nymbl_body_from_path(&body, "/proc/self/comm", NULL) == NYMBL_OK);
    CHECK_NUMBER(nymbl_body_size(body), 9);
    transfer = start_upload(body);
    peer_accept(&peer);
    peer_read(&peer, &request);
    CHECK(request.body.data != NULL &&
          strstr(request.body.data, "\r\n\r\n%PDF-1.4\n\r\n--") != NULL);
    peer_respond(&peer, 201, "", "{\"id\":1}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    request_free(&request);
    peer_close(&peer);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    world_close();
}

static void file_that_reports_size_0_has_a_limit(void)
{
    nymbl_body *body;
    nymbl_error err;
    nymbl_kind kind;

    kind = nymbl_body_from_path(&body, "/proc/self/pagemap", &err);
    CHECK(kind == NYMBL_TOO_LARGE || kind == NYMBL_IO);
    CHECK(body == NULL);
    CHECK_NUMBER(nymbl_object_count(), 0);
}

/* Files in /sys report 4,096 bytes and contain fewer. */
static void file_with_fewer_bytes_than_reported_is_aborted(void)
{
    nymbl_transfer *transfer;
    nymbl_body *body;
    nymbl_error err;

    if (access("/sys/kernel/uevent_seqnum", R_OK) < 0) {
        test_skip("no /sys");
        return;
    }
    world_open(NULL);
    REQUIRE(nymbl_body_from_path(&body, "/sys/kernel/uevent_seqnum", NULL) ==
            NYMBL_OK);
    transfer = start_upload(body);
    CHECK(ended(transfer, &err) == NYMBL_IO);
    CHECK_TEXT(err.reason, "changed");
    CHECK(!err.outcome_unknown);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    world_close();
}

/* A new name, owner or mode does not change the content. */
static void renamed_file_is_sent(void)
{
    char *data = pattern(4000000);
    nymbl_transfer *transfer;
    nymbl_body *body;
    request request;
    peer peer;

    world_open(NULL);
    world_write("up", data, 4000000);
    REQUIRE(nymbl_body_from_path(&body, world_path("up"), NULL) == NYMBL_OK);
    transfer = start_upload(body);
    peer_accept(&peer);
    peer_await(&peer, 100000);
    CHECK(counts_of(transfer).body_sent < 4000000);
    CHECK(rename(world_path("up"), world_path("done")) == 0);
    CHECK(chmod(world_path("done"), 0400) == 0);
    peer_read(&peer, &request);
    CHECK(memmem(request.body.data, request.body.size, data, 4000000) != NULL);
    peer_respond(&peer, 201, "", "{\"id\":1}");
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    request_free(&request);
    peer_close(&peer);
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    free(data);
    world_close();
}

static void status_is_that_of_the_file_when_it_was_opened(void)
{
    const struct stat *opened;
    struct stat before;
    nymbl_body *body;

    world_open(NULL);
    world_write("up", "%PDF-", 5);
    REQUIRE(stat(world_path("up"), &before) == 0);
    REQUIRE(nymbl_body_from_path(&body, world_path("up"), NULL) == NYMBL_OK);
    world_write("up", "%PDF-1.4", 8);
    opened = nymbl_body_status(body);
    REQUIRE(opened != NULL);
    CHECK(opened->st_ino == before.st_ino && opened->st_size == 5);
    nymbl_body_free(body);
    REQUIRE(nymbl_body_from_bytes(&body, "x", 1, NULL) == NYMBL_OK);
    CHECK(nymbl_body_status(body) == NULL);
    nymbl_body_free(body);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(file_that_reports_size_0_is_read),
        TEST(file_that_reports_size_0_has_a_limit),
        TEST(file_with_fewer_bytes_than_reported_is_aborted),
        TEST(renamed_file_is_sent),
        TEST(status_is_that_of_the_file_when_it_was_opened),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
