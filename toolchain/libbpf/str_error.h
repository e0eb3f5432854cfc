/* A header inside of libbpf that Felix includes (felix/bpf/libbpf/libbpf_api.h) and no libbpf-dev installs. */
#pragma once
#include <bpf/libbpf.h>

#define STRERR_BUFSIZE 128

static inline char *libbpf_strerror_r(int err, char *dst, int len)
{
	libbpf_strerror(err, dst, len);
	return dst;
}
