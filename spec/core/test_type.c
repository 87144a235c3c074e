/* SPDX-License-Identifier: MIT */
/* The type of a body's bytes, checked before they are sent. */
#include "peer.h"

#define DOCX                                                                   \
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

/* ---- ZIP files ---- */

static void number_add(text *to, unsigned long value, int bytes)
{
    for (int i = 0; i < bytes; i++, value >>= 8) {
        char byte = (char)(value & 255);

        text_add(to, &byte, 1);
    }
}

static void words_add(text *to, const char *words)
{
    text_add(to, words, strlen(words));
}

/* Stored entries with these names and a few bytes each. `streamed`: the sizes
 * follow the bytes. */
static text zip_of(const char *const *names, size_t count, bool streamed)
{
    text file = {0}, list = {0};

    for (size_t i = 0; i < count; i++) {
        unsigned long at = file.size, flags = streamed ? 8 : 0;
        size_t length = strlen(names[i]);

        text_add(&file, "PK\3\4", 4);
        number_add(&file, 20, 2);
        number_add(&file, flags, 2);
        number_add(&file, 0, 6);
        number_add(&file, 0, 4);
        number_add(&file, streamed ? 0 : 5, 4);
        number_add(&file, streamed ? 0 : 5, 4);
        number_add(&file, length, 2);
        number_add(&file, 0, 2);
        words_add(&file, names[i]);
        words_add(&file, "<x/>\n");
        if (streamed) {
            text_add(&file, "PK\7\10", 4);
            number_add(&file, 0, 4);
            number_add(&file, 5, 4);
            number_add(&file, 5, 4);
        }
        text_add(&list, "PK\1\2", 4);
        number_add(&list, 20, 2);
        number_add(&list, 20, 2);
        number_add(&list, flags, 2);
        number_add(&list, 0, 6);
        number_add(&list, 0, 4);
        number_add(&list, 5, 4);
        number_add(&list, 5, 4);
        number_add(&list, length, 2);
        number_add(&list, 0, 6);
        number_add(&list, 0, 6);
        number_add(&list, at, 4);
        words_add(&list, names[i]);
    }
    text_add(&list, "PK\5\6", 4);
    number_add(&list, 0, 4);
    number_add(&list, count, 2);
    number_add(&list, count, 2);
    number_add(&list, list.size - 12, 4);
    number_add(&list, file.size, 4);
    number_add(&list, 0, 2);
    text_add(&file, list.data, list.size);
    text_free(&list);
    return file;
}

static text docx(bool streamed)
{
    static const char *const names[] = {"[Content_Types].xml", "_rels/.rels",
                                        "word/document.xml"};

    return zip_of(names, 3, streamed);
}

static text xlsx(bool streamed)
{
    static const char *const names[] = {"[Content_Types].xml", "_rels/.rels",
                                        "xl/workbook.xml"};

    return zip_of(names, 3, streamed);
}

/* ---- types ---- */

static nymbl_body *stream_of(const void *data, size_t size, bool finished)
{
    nymbl_body *body;
    size_t taken;

    REQUIRE(nymbl_body_stream(&body, -1, NULL) == NYMBL_OK);
    CHECK(nymbl_body_write(body, data, size, &taken) >= 0);
    if (finished)
        nymbl_body_finish(body);
    return body;
}

/* The type of these bytes, and of the same bytes when streamed with more to
 * come. */
static void check_type(const void *data, size_t size, const char *type,
                       const char *unfinished)
{
    nymbl_body *bodies[] = {body_of(data, size), stream_of(data, size, true),
                            stream_of(data, size, false)};

    CHECK_TEXT(nymbl_sniff(data, size), type);
    for (int i = 0; i < 3; i++) {
        const char *expected = i == 2 ? unfinished : type;

        CHECK_TEXT(nymbl_body_type(bodies[i]), expected);
        if (expected != NULL) {
            CHECK(nymbl_body_is_type(bodies[i], expected) ==
                  (*expected != '\0'));
            CHECK(!nymbl_body_is_type(bodies[i], "text/plain"));
        }
        nymbl_body_free(bodies[i]);
    }
}

static void types_are_detected_from_the_first_bytes(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *type;
    } cases[] = {
        {"%PDF-1.4", 8, "application/pdf"},
        {"\33%-12345X%PDF-1.4", 17, "application/pdf"},
        {"\x89PNG\r\n\x1a\n", 8, "image/png"},
        {"\xff\xd8\xff\xe0", 4, "image/jpeg"},
        {"II*\0\10\0\0\0", 8, "image/tiff"},
        {"MM\0*\0\0\0\10", 8, "image/tiff"},
        {"II+\0\10\0\0\0", 8, "image/tiff"},
        {"MM\0+\0\10\0\0", 8, "image/tiff"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_type(cases[i].bytes, cases[i].size, cases[i].type, cases[i].type);
    check_type("", 0, "", NULL);
    check_type("text", 4, "", NULL);
    check_type("%PDF", 4, "", NULL);
    check_type("II+\0\10\0\1\0", 8, "", NULL);
}

static void pdf_begins_within_1024_bytes(void)
{
    char bytes[1200];

    memset(bytes, ' ', sizeof(bytes));
    memcpy(bytes + 1019, "%PDF-1.7", 8);
    check_type(bytes, sizeof(bytes), "application/pdf", "application/pdf");
    memset(bytes, ' ', sizeof(bytes));
    memcpy(bytes + 1020, "%PDF-1.7", 8);
    check_type(bytes, sizeof(bytes), "", "");
}

static void parameters_of_a_type_do_not_count(void)
{
    nymbl_body *body = body_of("%PDF-1.4", 8);

    CHECK(nymbl_body_is_type(body, "Application/PDF; version=1.4"));
    CHECK(!nymbl_body_is_type(body, "application/pdfx"));
    CHECK(!nymbl_body_is_type(body, ""));
    nymbl_body_free(body);
}

/* Whatever part of it is available, a ZIP file is never given a wrong type. */
static void zip_files_are_detected_by_their_entries(void)
{
    for (int streamed = 0; streamed < 2; streamed++) {
        text letter = docx(streamed), sheet = xlsx(streamed);

        check_type(letter.data, letter.size, DOCX, DOCX);
        check_type(sheet.data, sheet.size, "", "");
        for (size_t size = 4; size < letter.size; size++) {
            nymbl_body *body = stream_of(letter.data, size, false);
            const char *type = nymbl_sniff(letter.data, size);

            CHECK(type == NULL || strcmp(type, DOCX) == 0);
            CHECK(nymbl_body_is_type(body, DOCX));
            CHECK(!nymbl_body_is_type(body, "application/pdf"));
            nymbl_body_free(body);
        }
        for (size_t size = 4; size < sheet.size; size++) {
            nymbl_body *body = body_of(sheet.data, size);
            const char *type = nymbl_body_type(body);

            CHECK(type == NULL || *type == '\0');
            nymbl_body_free(body);
        }
        text_free(&letter);
        text_free(&sheet);
    }
}

/* Arbitrary damage, for the sanitizers. */
static void damaged_zip_files_are_checked(void)
{
    uint32_t state = 1;

    for (int i = 0; i < 20000; i++) {
        text file = i % 2 == 0 ? docx(i % 4 == 0) : xlsx(i % 4 == 1);
        nymbl_body *body;

        for (int j = 0; j < 3; j++) {
            state = state * 1664525u + 1013904223u;
            file.data[4 + (state >> 8) % (file.size - 4)] =
                (char)(j == 0 ? 0xff : state >> 24);
        }
        state = state * 1664525u + 1013904223u;
        body = i % 3 == 0 ? stream_of(file.data, file.size, i % 5 == 0)
                          : body_of(file.data, file.size - (state >> 8) % 30);
        nymbl_body_type(body);
        nymbl_body_is_type(body, DOCX);
        nymbl_body_free(body);
        text_free(&file);
    }
}

/* The bytes may wrap around the end of the window. */
static void beginning_is_read_at_any_position_in_the_window(void)
{
    text letter = docx(false);
    nymbl_transfer *transfer;
    nymbl_body *body;
    size_t taken;

    world_open(NULL);
    REQUIRE(nymbl_body_stream(&body, 300000, NULL) == NYMBL_OK);
    CHECK(nymbl_body_write(body, letter.data, letter.size, &taken) == NYMBL_OK);
    CHECK(nymbl_body_is_type(body, DOCX));
    CHECK(!nymbl_body_is_type(body, "image/png"));
    transfer = start_upload(body);
    while (counts_of(transfer).body_sent == 0)
        world_step();
    /* its beginning is gone: the type is unknown */
    CHECK(nymbl_body_type(body) == NULL);
    CHECK(nymbl_body_is_type(body, "image/png"));
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    text_free(&letter);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(types_are_detected_from_the_first_bytes),
        TEST(pdf_begins_within_1024_bytes),
        TEST(parameters_of_a_type_do_not_count),
        TEST(zip_files_are_detected_by_their_entries),
        TEST(damaged_zip_files_are_checked),
        TEST(beginning_is_read_at_any_position_in_the_window),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
