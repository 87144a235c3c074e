/* SPDX-License-Identifier: MIT */
/* Bounded memory: buffers and rings, by examples and against a simple model. */
#include "base/buffer.h"
#include "base/text.h"
#include "base/secret.h"
#include "base/ring.h"
#include "test.h"

static uint32_t random_state;

static uint32_t random_next(uint32_t below)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

static void append_grows_the_buffer(void)
{
    nymbl__buffer buffer;

    nymbl__buffer_init(&buffer, 100000);
    for (int i = 0; i < 1000; i++)
        CHECK(nymbl__buffer_append(&buffer, "0123456789", 10) == NYMBL_OK);
    CHECK_NUMBER((long long)buffer.size, 10000);
    CHECK_NUMBER((long long)strlen(buffer.data), 10000);
    for (size_t i = 0; i < buffer.size; i++)
        CHECK(buffer.data[i] == (char)('0' + i % 10));
    nymbl__buffer_free(&buffer);
    CHECK(buffer.data == NULL && buffer.size == 0 && buffer.max == 100000);
}

static void append_past_the_limit_fails(void)
{
    nymbl__buffer buffer;

    nymbl__buffer_init(&buffer, 5);
    CHECK(nymbl__buffer_puts(&buffer, "123") == NYMBL_OK);
    CHECK(nymbl__buffer_puts(&buffer, "456") == NYMBL_TOO_LARGE);
    CHECK_TEXT(buffer.data, "123");
    CHECK(nymbl__buffer_append(&buffer, "x", SIZE_MAX) == NYMBL_TOO_LARGE);
    CHECK(nymbl__buffer_append(&buffer, "x", SIZE_MAX - 2) == NYMBL_TOO_LARGE);
    CHECK(nymbl__buffer_puts(&buffer, "45") == NYMBL_OK);
    CHECK(nymbl__buffer_puts(&buffer, "6") == NYMBL_TOO_LARGE);
    CHECK(nymbl__buffer_puts(&buffer, "") == NYMBL_OK);
    CHECK_TEXT(buffer.data, "12345");
    nymbl__buffer_free(&buffer);
}

static void take_moves_the_text_out(void)
{
    nymbl__buffer buffer;
    char *text;

    nymbl__buffer_init(&buffer, 50);
    CHECK(nymbl__buffer_take(&buffer) == NULL);
    CHECK(nymbl__buffer_puts(&buffer, "text") == NYMBL_OK);
    text = nymbl__buffer_take(&buffer);
    CHECK_TEXT(text, "text");
    CHECK(buffer.data == NULL && buffer.size == 0);
    CHECK(nymbl__buffer_puts(&buffer, "more") == NYMBL_OK);
    CHECK_TEXT(buffer.data, "more");
    nymbl__secret_free(text);
    nymbl__buffer_free(&buffer);
}

static void appending_nothing_succeeds(void)
{
    nymbl__buffer buffer;

    nymbl__buffer_init(&buffer, 0);
    CHECK(nymbl__buffer_append(&buffer, NULL, 0) == NYMBL_OK);
    CHECK_TEXT(buffer.data, "");
    CHECK(nymbl__buffer_append(&buffer, "x", 1) == NYMBL_TOO_LARGE);
    nymbl__buffer_free(&buffer);
}

static void wipe_leaves_zeros(void)
{
    char text[] = "secret";

    nymbl__secret_wipe(text, sizeof(text));
    for (size_t i = 0; i < sizeof(text); i++)
        CHECK(text[i] == 0);
    nymbl__secret_wipe(text, 0);
    nymbl__secret_free(NULL);
}

static void copy_of_null_is_null(void)
{
    char *copy = (char *)"x";

    CHECK(nymbl__text_copy(&copy, NULL) == NYMBL_OK);
    CHECK(copy == NULL);
    CHECK(nymbl__text_copy(&copy, "") == NYMBL_OK);
    CHECK_TEXT(copy, "");
    nymbl__secret_free(copy);
}

static void ring_returns_its_bytes(void)
{
    nymbl__ring ring;
    char out[8];

    nymbl__ring_init(&ring, 6);
    CHECK_NUMBER((long long)nymbl__ring_room(&ring), 6);
    CHECK_NUMBER((long long)nymbl__ring_take(&ring, out, 8), 0);
    CHECK(nymbl__ring_put(&ring, "abcd", 4) == NYMBL_OK);
    CHECK_NUMBER((long long)nymbl__ring_take(&ring, out, 3), 3);
    CHECK(nymbl__ring_put(&ring, "efghi", 5) == NYMBL_OK); /* wraps around */
    CHECK_NUMBER((long long)nymbl__ring_room(&ring), 0);
    CHECK_NUMBER((long long)nymbl__ring_peek(&ring, out, 8), 6);
    CHECK(memcmp(out, "defghi", 6) == 0);
    CHECK_NUMBER((long long)nymbl__ring_take(&ring, out, 8), 6);
    CHECK(memcmp(out, "defghi", 6) == 0);
    CHECK_NUMBER((long long)nymbl__ring_room(&ring), 6);
    CHECK(nymbl__ring_put(&ring, NULL, 0) == NYMBL_OK);
    nymbl__ring_free(&ring);
    CHECK(ring.data == NULL && ring.max == 6);
}

/* The model is a text from whose start bytes are dropped. */
static void ring_play(uint32_t seed, size_t max)
{
    static char model[1 << 20], out[1 << 20];
    size_t size = 0;
    unsigned char next = 0;
    nymbl__ring ring;

    random_state = seed;
    nymbl__ring_init(&ring, max);
    for (int i = 0; i < 3000; i++) {
        size_t want = random_next((uint32_t)max + 1);

        if (random_next(2) == 0) {
            char *piece = out;

            if (want > nymbl__ring_room(&ring))
                want = nymbl__ring_room(&ring);
            for (size_t at = 0; at < want; at++)
                piece[at] = (char)next++;
            memcpy(model + size, piece, want);
            size += want;
            REQUIRE(nymbl__ring_put(&ring, piece, want) == NYMBL_OK);
        } else {
            bool look = random_next(3) == 0;
            size_t got = look ? nymbl__ring_peek(&ring, out, want)
                              : nymbl__ring_take(&ring, out, want);

            REQUIRE(got == (want < size ? want : size));
            REQUIRE(memcmp(out, model, got) == 0);
            if (!look) {
                memmove(model, model + got, size - got);
                size -= got;
            }
        }
        REQUIRE(ring.size == size && ring.capacity <= max);
        REQUIRE(nymbl__ring_room(&ring) == max - size);
    }
    nymbl__ring_free(&ring);
}

static void ring_agrees_with_a_model(void)
{
    for (uint32_t seed = 1; seed <= 10; seed++) {
        ring_play(seed, 1);
        ring_play(seed, 7);
        ring_play(seed, 1000);
        ring_play(seed, 16384);
        ring_play(seed, 40000);
        ring_play(seed, 131072);
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(append_grows_the_buffer), TEST(append_past_the_limit_fails),
        TEST(take_moves_the_text_out), TEST(appending_nothing_succeeds),
        TEST(wipe_leaves_zeros),       TEST(copy_of_null_is_null),
        TEST(ring_returns_its_bytes),  TEST(ring_agrees_with_a_model),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
