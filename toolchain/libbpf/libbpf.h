/*
 * Makes libbpf 1.0 to 1.2 usable for Felix, which needs 1.3 or newer; Debian 12 has 1.1. There two functions have other
 * names, and the kernel's tcx hook is missing, which the lab configures Felix not to use.
 */
#pragma once
#include <errno.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#if LIBBPF_MAJOR_VERSION < 1
#error "libbpf 1.0 or newer is needed"
#elif LIBBPF_MAJOR_VERSION == 1 && LIBBPF_MINOR_VERSION < 3
#define BPF_TCX_INGRESS 46
#define BPF_TCX_EGRESS 47

static inline int bpf_prog_get_info_by_fd(int fd, struct bpf_prog_info *info, __u32 *length)
{
	return bpf_obj_get_info_by_fd(fd, info, length);
}

static inline int bpf_map_get_info_by_fd(int fd, struct bpf_map_info *info, __u32 *length)
{
	return bpf_obj_get_info_by_fd(fd, info, length);
}

struct bpf_tcx_opts {
	size_t sz;
};

static inline struct bpf_link *bpf_program__attach_tcx(const struct bpf_program *program, int interface,
						       const struct bpf_tcx_opts *opts)
{
	(void)program, (void)interface, (void)opts;
	errno = ENOTSUP;
	return NULL;
}
#endif
