/* SPDX-License-Identifier: MIT */
/* Disks that lose power at any moment of a save: what was reported as saved is
 * there, no file is half a file, an invalid partial file is never accepted, and
 * the next download completes. */
#include "power.h"

#include "file/atomic_file.h"
#include "file/tempfile.h"
#include "peer.h"

#include <fcntl.h>

#define RESOURCE                                                               \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SIZE 20000

/* What there may be under the document's name: `power.allowed`. */
enum { NONE = 1, ONE = 2, TWO = 4 };

static char *documents[2]; /* by validator: "one", "two" */
static const char *reason;

/* NONE, ONE or TWO; 0 if it is something else. */
static unsigned document_now(const char *folder)
{
    size_t size;
    char *data = power_read(folder, "doc", &size);
    unsigned is = data == NULL ? NONE : 0;

    for (int i = 0; i < 2 && data != NULL; i++) {
        if (size == SIZE && memcmp(data, documents[i], SIZE) == 0)
            is = i == 0 ? ONE : TWO;
    }
    free(data);
    return is;
}

static const char *document_of(const char *validator)
{
    return documents[strcmp(validator, "\"one\"") == 0 ? 0 : 1];
}

/* The machine has started again: check the files, and download the document. */
static bool document_check(void)
{
    nymbl__atomic_file *save;
    const char *document = documents[1];
    bool good = CHECK((document_now("cut") & power.allowed) != 0);
    size_t at;
    int fd;

    REQUIRE(nymbl__atomic_file_open(&save, power_path("cut", "doc"), 0, true,
                                    RESOURCE, NULL) == NYMBL_OK);
    at = (size_t)nymbl__atomic_file_offset(save);
    if (at > 0) {
        size_t size;
        char *part = power_read("cut", "doc.nymbl-part", &size);

        document = document_of(nymbl__atomic_file_validator(save));
        good = CHECK(size >= at && at <= SIZE &&
                     memcmp(part, document, at) == 0) &&
               good;
        free(part);
        if (at == SIZE)
            nymbl__atomic_file_step_back(save);
        at = (size_t)nymbl__atomic_file_offset(save);
    } else {
        CHECK(nymbl__atomic_file_restart(save, "\"two\"", &reason) == NYMBL_OK);
    }
    CHECK(nymbl__atomic_file_write(save, document + at, SIZE - at, &reason) ==
          NYMBL_OK);
    good = CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK) && good;
    good =
        CHECK(document_now("cut") == (document == documents[0] ? ONE : TWO)) &&
        good;
    fd = open(power_path("cut", ""), O_RDONLY | O_CLOEXEC);
    nymbl__tempfile_sweep(fd); /* open() does it once in each process */
    close(fd);
    return CHECK_NUMBER(power_names("cut"), 1) && good;
}

/* Resume the document with a validator, up to `to`; then either lose the rest
 * or commit. */
static void partial_resume(const char *validator, size_t to, bool commits)
{
    const char *document = document_of(validator);
    nymbl__atomic_file *save;
    size_t at;

    REQUIRE(nymbl__atomic_file_open(&save, power_path("live", "doc"), 0, true,
                                    RESOURCE, NULL) == NYMBL_OK);
    at = (size_t)nymbl__atomic_file_offset(save);
    if (at == 0 || strcmp(nymbl__atomic_file_validator(save), validator) != 0) {
        CHECK(nymbl__atomic_file_restart(save, validator, &reason) == NYMBL_OK);
        at = 0;
    }
    while (at < to) {
        size_t size = to - at < 3000 ? to - at : 3000;

        CHECK(nymbl__atomic_file_write(save, document + at, size, &reason) ==
              NYMBL_OK);
        at += size;
    }
    if (commits)
        CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
    else
        nymbl__atomic_file_keep_partial(save);
}

/* From now on only this document may be there. */
static void saved(unsigned document)
{
    power.allowed = document;
    power_cut();
}

/* Save the document without a partial file. */
static void whole_save(const char *document, bool overwrites)
{
    nymbl__atomic_file *save;

    REQUIRE(nymbl__atomic_file_open(&save, power_path("live", "doc"), 0,
                                    overwrites, NULL, NULL) == NYMBL_OK);
    for (size_t at = 0; at < SIZE; at += 5000)
        CHECK(nymbl__atomic_file_write(save, document + at, 5000, &reason) ==
              NYMBL_OK);
    CHECK(nymbl__atomic_file_commit(save, &reason) == NYMBL_OK);
}

static void disk_begin(const char *plan)
{
    static char boots[2][128];

    world_open(NULL);
    documents[0] = pattern(SIZE);
    documents[1] = pattern(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        documents[1][i] ^= 0x55;
    world_write("boot-a", "aaaaaaaa-0000-4000-8000-000000000000\n", 37);
    world_write("boot-b", "bbbbbbbb-0000-4000-8000-000000000000\n", 37);
    for (int i = 0; i < 2; i++) {
        snprintf(boots[i], sizeof(boots[i]), "%s",
                 world_path(i == 0 ? "boot-a" : "boot-b"));
        power.boot[i] = boots[i];
    }
    power_begin(plan, document_check);
}

static void disk_end(void)
{
    power_end();
    free(documents[0]);
    free(documents[1]);
    world_clear(".");
    world_close();
}

static void power_cut_leaves_the_old_file_or_the_new_one(void)
{
    static const char *const plans[] = {"", "tmpfile=EPERM", "linkat=EPERM",
                                        "renameat2=ENOSYS"};

    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        disk_begin(plans[i]);
        power.allowed = NONE | ONE;
        whole_save(documents[0], i % 2 == 0);
        saved(ONE);
        power.allowed = ONE | TWO;
        whole_save(documents[1], true);
        saved(TWO);
        CHECK(power.cuts > 20);
        CHECK(document_now("live") == TWO);
        if (test_failed())
            printf("%s\n", plans[i]);
        disk_end();
    }
}

static void power_cut_leaves_a_valid_partial_file_or_none(void)
{
    static const char *const plans[] = {"", "ftruncate=EPERM",
                                        "renameat2=ENOSYS", "flock=ENOLCK"};

    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        disk_begin(plans[i]);
        power.allowed = NONE;
        partial_resume("\"one\"", 7000, false);
        partial_resume("\"one\"", 12000, false); /* unchanged */
        partial_resume("\"two\"", 12000, false); /* it has changed */
        partial_resume("\"two\"", 12000, false); /* nothing arrived */
        power.allowed = NONE | TWO;
        partial_resume("\"two\"", SIZE, true);
        saved(TWO);
        partial_resume("\"one\"", SIZE, false); /* complete, but interrupted */
        power.allowed = ONE | TWO;
        partial_resume("\"one\"", SIZE, true);
        saved(ONE);
        CHECK(power.cuts > 100);
        CHECK(document_now("live") == ONE);
        if (test_failed())
            printf("%s\n", plans[i]);
        disk_end();
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(power_cut_leaves_the_old_file_or_the_new_one),
        TEST(power_cut_leaves_a_valid_partial_file_or_none),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
