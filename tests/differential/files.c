/* sendfile(2), splice(2), tee(2): file and pipe bytes in the middle of a stream. */
#include "harness.h"

static char buf[1 << 21];
static int file_of(long n, uint32_t seed) {
    FILE *t = tmpfile();
    char *p = malloc(n ? n : 1);
    fill(p, n, seed);
    int fd = dup(fileno(t));
    Q(write_full(fd, p, n)); Q(lseek(fd, 0, SEEK_SET));
    fclose(t); free(p);
    return fd;
}
static long at(int f) { return lseek(f, 0, SEEK_CUR); }
static void took_file(int fd, long from, long n, uint32_t seed, long size) {
    char *all = malloc(size), *got = malloc(n + 1);
    fill(all, size, seed);
    long r = read_full(fd, got, n);
    out("received %ld of the file: %s", r, r == n && !memcmp(got, all + from, n) ? "right" : "WRONG");
    free(all); free(got);
}

CASE(sendfile_basic) {
    if (server) { int f = file_of(10000, 3); C(sendfile(fd, f, NULL, 4000)); C(at(f)); off_t o = 1000; C(sendfile(fd, f, &o, 500)); C(o); C(at(f)); C(sendfile(fd, f, NULL, 100000)); C(at(f)); C(sendfile(fd, f, NULL, 10)); o = 20000; C(sendfile(fd, f, &o, 10)); C(o); C(sendfile(fd, f, NULL, 0)); step(); }
    else { took_file(fd, 0, 4000, 3, 10000); took_file(fd, 1000, 500, 3, 10000); took_file(fd, 4000, 6000, 3, 10000); step(); C(recv(fd, buf, 1, MSG_DONTWAIT)); }
}
CASE(sendfile_between_sends) {
    if (server) { for (int i = 0; i < 10; i++) { int f = file_of(3000, i); C(send(fd, "head", 4, 0)); C(sendfile(fd, f, NULL, 3000)); C(send(fd, "tail", 4, 0)); close(f); } step(); }
    else { for (int i = 0; i < 10; i++) { C(read_full(fd, buf, 4)); SHOW(buf, 4); took_file(fd, 0, 3000, i, 3000); C(read_full(fd, buf, 4)); SHOW(buf, 4); } step(); C(recv(fd, buf, 1, MSG_DONTWAIT)); }
}
CASE(sendfile_behind_unread_data) {
    /* What was sent before lies unread when the file comes. */
    if (server) { C(send(fd, "0123456789", 10, 0)); int f = file_of(3000, 1); C(sendfile(fd, f, NULL, 3000)); C(send(fd, "end", 3, 0)); step(); step(); }
    else { step(); need(fd, 3013); C(recv(fd, buf, 4, 0)); SHOW(buf, 4); C(read_full(fd, buf, 6)); SHOW(buf, 6); took_file(fd, 0, 3000, 1, 3000); C(recv(fd, buf, 100, 0)); SHOW(buf, 3); step(); }
}
CASE(sendfile_errors) {
    if (server) {
        int f = file_of(100, 1), p[2], d = open("/tmp", O_RDONLY), gone = dup(f); close(gone); Q(pipe(p)); off_t o = -1;
        C(sendfile(fd, fd, NULL, 10)); C(sendfile(fd, p[0], NULL, 10)); C(sendfile(fd, gone, NULL, 10)); C(sendfile(gone, f, NULL, 10)); C(sendfile(fd, d, NULL, 10)); C(sendfile(fd, f, &o, 10)); C(sendfile(fd, f, (void *)-1, 10)); C(sendfile(fd, f, NULL, (size_t)-1)); C(at(f)); C(sendfile(f, fd, NULL, 1));
        C(shutdown(fd, SHUT_WR)); Q(lseek(f, 0, SEEK_SET)); C(sendfile(fd, f, NULL, 10)); C(at(f)); step();
    } else { step(); wait_ev(fd, POLLRDHUP); C(drain(fd, NULL)); }
}
CASE(sendfile_large) {
    if (server) { int f = file_of(20 << 20, 7); long n = 0, r; while ((r = sendfile(fd, f, NULL, 20 << 20)) > 0) n += r; C(n); C(r); C(shutdown(fd, SHUT_WR)); }
    else { uint32_t h; C(drain(fd, &h)); out("%08x", h); }
}
CASE(sendfile_nonblocking) {
    if (server) { int f = file_of(20 << 20, 7); long n = 0, r; int waits = 0; nonblock(fd, 1); for (;;) { r = sendfile(fd, f, NULL, 1 << 20); if (r > 0) n += r; else if (r < 0 && errno == EAGAIN) { waits = 1; wait_ev(fd, POLLOUT); } else break; } C(n); C(r); T(at(f) == n); C(shutdown(fd, SHUT_WR)); }
    else { wait_peer_asleep(); uint32_t h; C(drain(fd, &h)); out("%08x", h); }
}
CASE(sendfile_to_closed_peer) {
    if (server) { step(); wait_ev(fd, POLLRDHUP); int f = file_of(100, 1); C(sendfile(fd, f, NULL, 50)); wait_ev(fd, 0); C(sendfile(fd, f, NULL, 50)); so_error(fd); }
    else { C(close(fd)); step(); }
}
CASE(splice_socket_to_pipe_to_file) {
    int p[2];
    Q(pipe(p));
    if (server) { put(fd, 3000, 5); step(); step(); put(fd, 50000, 6); step(); }
    else {
        step(); need(fd, 3000); C(splice(fd, NULL, p[1], NULL, 1000, 0)); C(splice(fd, NULL, p[1], NULL, 100000, SPLICE_F_MOVE)); int f = file_of(0, 0); C(splice(p[0], NULL, f, NULL, 3000, 0)); Q(lseek(f, 0, SEEK_SET)); took_file(f, 0, 3000, 5, 3000); nonblock(fd, 1); C(splice(fd, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK)); nonblock(fd, 0); step();
        long n = 0, r; Q(ftruncate(f, 0)); Q(lseek(f, 0, SEEK_SET)); while (n < 50000 && (r = splice(fd, NULL, p[1], NULL, 50000 - n, 0)) > 0) { n += r; while (r > 0) r -= splice(p[0], NULL, f, NULL, r, 0); } C(n); Q(lseek(f, 0, SEEK_SET)); took_file(f, 0, 50000, 6, 50000); step();
    }
}
CASE(splice_after_part_was_read) {
    int p[2];
    Q(pipe(p));
    if (server) { C(send(fd, "0123456789", 10, 0)); step(); }
    else { step(); need(fd, 10); C(recv(fd, buf, 3, 0)); SHOW(buf, 3); C(splice(fd, NULL, p[1], NULL, 4, 0)); C(read(p[0], buf, 10)); SHOW(buf, 4); C(recv(fd, buf, 10, 0)); SHOW(buf, 3); }
}
CASE(splice_pipe_to_socket) {
    int p[2];
    Q(pipe(p));
    if (server) { C(send(fd, "before ", 7, 0)); C(write(p[1], "through the pipe", 16)); C(splice(p[0], NULL, fd, NULL, 11, 0)); C(splice(p[0], NULL, fd, NULL, 100, SPLICE_F_MORE)); C(send(fd, " after", 6, 0)); C(splice(p[0], NULL, fd, NULL, 10, SPLICE_F_NONBLOCK)); close(p[1]); C(splice(p[0], NULL, fd, NULL, 10, 0)); step(); }
    else { C(read_full(fd, buf, 29)); SHOW(buf, 29); step(); C(recv(fd, buf, 1, MSG_DONTWAIT)); }
}
CASE(splice_blocks_and_sees_eof) {
    int p[2];
    Q(pipe(p));
    if (server) { wait_peer_asleep(); Q(send(fd, "woken", 5, 0)); step(); C(shutdown(fd, SHUT_WR)); step(); }
    else { C(splice(fd, NULL, p[1], NULL, 100, 0)); step(); step(); wait_ev(fd, POLLRDHUP); C(splice(fd, NULL, p[1], NULL, 100, 0)); C(read(p[0], buf, 100)); SHOW(buf, 5); }
}
CASE(splice_more_than_the_pipe_takes) {
    /* Who reads the pipe itself must not wait for room in it. How much goes at a time is the kernel's affair. */
    int p[2];
    Q(pipe(p));
    if (server) { put(fd, 100000, 7); step(); step(); }
    else { step(); need(fd, 100000); long n = 0, r, got = 0; while (n < 100000 && (r = splice(fd, NULL, p[1], NULL, 100000 - n, 0)) > 0) { n += r; got += Q(read_full(p[0], buf + got, r)); } C(n); char *d = malloc(100000); fill(d, 100000, 7); T(!memcmp(buf, d, 100000)); step(); }
}
CASE(splice_proxy) {
    /* haproxy's way: from one connection to another through a pipe. */
    int c = another(), p[2];
    warm(c);
    Q(pipe(p));
    if (server) { long n = 0, r; while ((r = splice(fd, NULL, p[1], NULL, 65536, SPLICE_F_MOVE)) > 0) { n += r; while (r > 0) { long w = splice(p[0], NULL, c, NULL, r, SPLICE_F_MOVE); if (w <= 0) { C(w); return; } r -= w; } } C(n); C(shutdown(c, SHUT_WR)); }
    else { pid_t k = fork(); if (!k) { put(fd, 5 << 20, 4); shutdown(fd, SHUT_WR); _exit(0); } get(c, 5 << 20, 4); C(recv(c, buf, 1, 0)); waitpid(k, NULL, 0); }
}
CASE(splice_errors) {
    int p[2], f = file_of(10, 1);
    off_t o = 0;
    Q(pipe(p));
    C(splice(fd, NULL, f, NULL, 10, 0)); C(splice(fd, &o, p[1], NULL, 10, 0)); C(splice(p[0], NULL, fd, &o, 10, 0)); C(splice(fd, NULL, p[0], NULL, 10, 0)); C(splice(-1, NULL, p[1], NULL, 10, 0)); C(splice(fd, NULL, p[1], NULL, 0, 0)); C(splice(fd, NULL, p[1], NULL, 10, 0x1000)); C(tee(fd, p[1], 10, 0)); nonblock(fd, 1); C(splice(fd, NULL, p[1], NULL, 10, 0));
    C(vmsplice(fd, &(struct iovec){buf, 1}, 1, 0)); C(copy_file_range(fd, NULL, f, NULL, 1, 0)); C(copy_file_range(f, NULL, fd, NULL, 1, 0)); C((long)mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == -1); C(ftruncate(fd, 5)); C(fallocate(fd, 0, 0, 5)); C(readahead(fd, 0, 5)); C(sync_file_range(fd, 0, 5, 0));
}
CASE(file_then_ring_then_file) {
    /* The two ways alternate at the sender, and the reader's calls do not line up with them. */
    if (server) { int f = file_of(100000, 9); for (int i = 0; i < 40; i++) { off_t o = i * 1000; if (i % 3 == 0) { if (sendfile(fd, f, &o, 1000) != 1000) out("short"); } else if (i % 3 == 1) { Q(pread(f, buf, 1000, o)); Q(send(fd, buf, 1000, 0)); } else { int p[2]; Q(pipe(p)); Q(pread(f, buf, 1000, o)); Q(write(p[1], buf, 1000)); if (splice(p[0], NULL, fd, NULL, 1000, 0) != 1000) out("short splice"); close(p[0]); close(p[1]); } } C(shutdown(fd, SHUT_WR)); }
    else { long n = 0, r; while ((r = recv(fd, buf + n, 1 + n % 777, 0)) > 0) n += r; C(n); char *d = malloc(100000); fill(d, 100000, 9); T(!memcmp(buf, d, 40000)); }
}
CASE(read_file_descriptors_untouched) {
    /* The same calls on other kinds of files. */
    int f = file_of(1000, 2), p[2], e = eventfd(0, 0); char b[8]; uint64_t v = 5;
    Q(pipe(p)); C(read(f, buf, 10)); C(pread(f, buf, 10, 995)); C(lseek(f, 0, SEEK_SET)); C(write(e, &v, 8)); C(read(e, b, 8)); C(write(p[1], "abc", 3)); C(read(p[0], b, 8)); C(close(p[1])); C(read(p[0], b, 8)); C(readv(f, &(struct iovec){buf, 100}, 1)); C(sendfile(p[0], f, NULL, 10)); C(recv(f, b, 1, 0)); C(send(p[0], b, 1, 0)); C(shutdown(f, 0)); C(fcntl(f, F_GETFL) & O_ACCMODE); C(ioctl(f, FIONREAD, b)); C(*(int *)b);
    step(); put(fd, 10, 1); get(fd, 10, 1);
}
