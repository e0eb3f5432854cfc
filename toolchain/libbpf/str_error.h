/* A private header of libbpf, which Felix includes (felix/bpf/libbpf/libbpf_api.h) and libbpf-dev lacks. */
#pragma once
#include <bpf/libbpf.h>

#define STRERR_BUFSIZE 128

static inline char *libbpf_strerror_r(int err, char *dst, int len)
{
	libbpf_strerror(err, dst, len);
	return dst;
}
