/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4). libcurl does not offer it, and a TLS library that is
 * linked for it could clash with the host's. */
#include "base/sha256.h"

#include "base/secret.h"

#include <string.h>

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
    0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
    0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t word, int bits)
{
    return word >> bits | word << (32 - bits);
}

/* The functions of FIPS 180-4, section 4.1.2. */
#define CHOOSE(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define MAJORITY(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define SUM_0(x) (rotate(x, 2) ^ rotate(x, 13) ^ rotate(x, 22))
#define SUM_1(x) (rotate(x, 6) ^ rotate(x, 11) ^ rotate(x, 25))
#define SIGMA_0(x) (rotate(x, 7) ^ rotate(x, 18) ^ (x) >> 3)
#define SIGMA_1(x) (rotate(x, 17) ^ rotate(x, 19) ^ (x) >> 10)

/* One round. Instead of moving the values from variable to variable, each round
 * names the variables in another order. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                       \
    h += SUM_1(e) + CHOOSE(e, f, g) + constants[i] + w[(i)&15];                \
    d += h;                                                                    \
    h += SUM_0(a) + MAJORITY(a, b, c)

#define EIGHT_ROUNDS(i)                                                        \
    ROUND(a, b, c, d, e, f, g, h, (i));                                        \
    ROUND(h, a, b, c, d, e, f, g, (i) + 1);                                    \
    ROUND(g, h, a, b, c, d, e, f, (i) + 2);                                    \
    ROUND(f, g, h, a, b, c, d, e, (i) + 3);                                    \
    ROUND(e, f, g, h, a, b, c, d, (i) + 4);                                    \
    ROUND(d, e, f, g, h, a, b, c, (i) + 5);                                    \
    ROUND(c, d, e, f, g, h, a, b, (i) + 6);                                    \
    ROUND(b, c, d, e, f, g, h, a, (i) + 7)

/* Replace a word of the message schedule by the word 16 positions later: only
 * 16 words are kept. */
#define EXTEND(i)                                                              \
    w[i] += SIGMA_1(w[((i) + 14) & 15]) + w[((i) + 9) & 15] +                  \
            SIGMA_0(w[((i) + 1) & 15])

static void block_process(uint32_t state[8], const unsigned char *block)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    uint32_t w[16];

    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    EIGHT_ROUNDS(0);
    EIGHT_ROUNDS(8);
    for (int i = 16; i < 64; i += 16) {
        for (int j = 0; j < 16; j++)
            EXTEND(j);
        EIGHT_ROUNDS(i);
        EIGHT_ROUNDS(i + 8);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void nymbl__sha256_init(nymbl__sha256 *hash)
{
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372,
                                        0xa54ff53a, 0x510e527f, 0x9b05688c,
                                        0x1f83d9ab, 0x5be0cd19};

    memcpy(hash->state, initial, sizeof(initial));
    hash->size = 0;
}

void nymbl__sha256_add(nymbl__sha256 *hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    size_t buffered = hash->size % 64, missing = 64 - buffered;

    hash->size += size;
    if (buffered > 0 && size >= missing) {
        memcpy(hash->block + buffered, bytes, missing);
        block_process(hash->state, hash->block);
        bytes += missing;
        size -= missing;
        buffered = 0;
    }
    for (; buffered == 0 && size >= 64; size -= 64, bytes += 64)
        block_process(hash->state, bytes);
    if (size > 0)
        memcpy(hash->block + buffered, bytes, size);
}

void nymbl__sha256_format(const unsigned char bytes[32], char text[65])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < 32; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[64] = '\0';
}

void nymbl__sha256_text(nymbl__sha256 *hash, char text[65])
{
    static const unsigned char padding[64] = {0x80};
    uint64_t bits = hash->size * 8;
    unsigned char length[8], bytes[32];

    nymbl__sha256_add(hash, padding, 1 + (119 - hash->size % 64) % 64);
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(bits >> (56 - 8 * i));
    nymbl__sha256_add(hash, length, sizeof(length));
    for (int i = 0; i < 32; i++)
        bytes[i] = (unsigned char)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
    nymbl__sha256_format(bytes, text);
    nymbl__secret_wipe(hash, sizeof(*hash));
}
