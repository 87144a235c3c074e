/* SPDX-License-Identifier: MIT */
/* The same program in C++20, which has designated initializers. */
#include "consumer.c"
