/* What the files of the extension share.
 *
 * calls.py calls the functions marked API, and answers for types, shapes and that arrays are contiguous; what depends
 * on values is checked here. Each returns how many images of the batch it could not serve, or -1 where there is no
 * memory.
 */
#ifndef ANOMALIB_SPD_NATIVE_H
#define ANOMALIB_SPD_NATIVE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define API __declspec(dllexport)
#else
#define API __attribute__((visibility("default")))
#endif

/* twice: for any processor, and for those with wider vectors */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

#endif
