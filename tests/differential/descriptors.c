/* dup(2), fcntl(2), close(2), close_range(2), stdio on a socket: several names of one connection. */
#include "harness.h"

static char buf[1 << 20];
#define SENDS(text) do { step(); if (server) Q(send(fd, text, sizeof text - 1, 0)); step(); } while (0)

CASE(dup_is_the_same_connection) {
    int d = -1;
    if (!server) { d = CFD(dup(fd)); T(d == fd + 1 || d > fd); }
    SENDS("0123456789");
    if (!server) { need(fd, 10); C(recv(fd, buf, 3, 0)); SHOW(buf, 3); C(recv(d, buf, 3, 0)); SHOW(buf, 3); C(recv(fd, buf, 3, MSG_PEEK)); SHOW(buf, 3); state(d); readable_bytes(d); C(read(d, buf, 10)); SHOW(buf, 4); C(send(d, "by d ", 5, 0)); C(send(fd, "by fd", 5, 0)); }
    step();
    if (server) { need(fd, 10); C(recv(fd, buf, 100, 0)); SHOW(buf, 10); }
    step();
    if (!server) { close(fd); C(recv(fd, buf, 1, 0)); C(recv(d, buf, 1, MSG_DONTWAIT)); }
    SENDS("still here");
    if (!server) { need(d, 10); C(recv(d, buf, 100, 0)); C(send(d, "yes", 3, 0)); }
    step();
    if (server) { need(fd, 3); C(recv(fd, buf, 100, 0)); state(fd); }
    step();
    if (!server) close(d);
    step();
    if (server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 100, 0)); }
}
CASE(dup2_over_a_live_socket) {
    int c = another();
    warm(c);
    SENDS("to the first");
    if (!server) { need(fd, 12); C(dup2(c, fd) == fd); }
    step();
    if (server) { wait_ev(fd, 0); state(fd); C(recv(fd, buf, 10, 0)); /* the client's end went away with unread bytes */ Q(send(c, "to the second", 13, 0)); }
    step();
    if (!server) { need(fd, 13); C(recv(fd, buf, 5, 0)); SHOW(buf, 5); C(recv(c, buf, 100, 0)); SHOW(buf, 8); close(c); C(send(fd, "back", 4, 0)); }
    else { C(recv(c, buf, 4, MSG_WAITALL)); SHOW(buf, 4); }
}
CASE(dup2_of_a_file_over_a_live_socket) {
    int f = open("/dev/zero", O_RDWR);
    if (!server) { C(dup2(f, fd) == fd); memset(buf, 1, 4); C(read(fd, buf, 4)); SHOW(buf, 4); C(recv(fd, buf, 4, 0)); C(send(fd, "x", 1, 0)); state(fd); C(write(fd, "x", 1)); }
    step();
    if (server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 10, 0)); }
}
CASE(dup2_onto_itself_and_errors) {
    C(dup2(fd, fd) == fd); C(dup3(fd, fd, 0)); C(dup2(fd, -1)); C(dup2(-1, fd)); C(dup(-1)); C(dup3(fd, fd + 1, 0x1234)); C(dup2(fd, 1 << 30)); C(fcntl(fd, F_DUPFD, -1)); C(fcntl(fd, F_DUPFD, 1 << 30)); C(fcntl(-1, F_GETFD)); C(fcntl(fd, 9999)); int gone = dup(fd); close(gone); C(dup2(gone, fd)); C(close(gone)); C(close(-1));
    step(); put(fd, 500, 1); get(fd, 500, 1);
}
CASE(dup3_and_dupfd_flags) {
    int a = C(dup3(fd, 60, O_CLOEXEC)), b = C(fcntl(fd, F_DUPFD, 70)), c = C(fcntl(fd, F_DUPFD_CLOEXEC, 70)), d = C(dup2(fd, 80));
    C(fcntl(a, F_GETFD)); C(fcntl(b, F_GETFD)); C(fcntl(c, F_GETFD)); C(fcntl(d, F_GETFD)); C(fcntl(fd, F_GETFD)); C(fcntl(b, F_SETFD, FD_CLOEXEC)); C(fcntl(b, F_GETFD)); C(fcntl(fd, F_SETFD, 0)); C(fcntl(fd, F_GETFD));
    close(fd); step();
    put(a, 300, 1); get(b, 300, 1); put(c, 300, 2); get(d, 300, 2);
    close(a); close(b); close(c); step(); put(d, 300, 3); get(d, 300, 3); C(recv(d, buf, 1, MSG_DONTWAIT)); step(); close(d);
}
CASE(lowest_number_first) {
    /* POSIX: the lowest free number, whatever the library has open. */
    int a = C(dup(fd)), b = C(dup(fd)), c = C(open("/dev/null", O_RDONLY)), d = C(socket(AF_INET, SOCK_STREAM, 0)), e = C(epoll_create1(0));
    close(a); C(dup(fd)); close(c); C(dup(fd)); int p[2]; C(pipe(p)); C(p[0]); C(p[1]);
    step(); put(fd, 500, 1); get(fd, 500, 1); step(); C(dup(fd)); C(fcntl(fd, F_DUPFD, 50));
}
CASE(nonblock_is_shared_by_copies) {
    int d = dup(fd);
    if (!server) { nonblock(d, 1); T(fcntl(fd, F_GETFL) & O_NONBLOCK); C(recv(fd, buf, 1, 0)); C(read(d, buf, 1)); nonblock(fd, 0); T(!(fcntl(d, F_GETFL) & O_NONBLOCK)); C(fcntl(d, F_GETFL)); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "x", 1, 0)); } else { C(recv(d, buf, 1, 0)); }
    step();
    if (!server) { C(fcntl(fd, F_SETFL, O_NONBLOCK | O_APPEND)); C(fcntl(fd, F_GETFL)); C(recv(d, buf, 1, 0)); C(fcntl(fd, F_SETFL, 0)); C(fcntl(d, F_GETFL)); }
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "y", 1, 0)); } else { C(read(d, buf, 1)); SHOW(buf, 1); }
}
CASE(options_are_shared_by_copies) {
    int d = dup(fd);
    C(set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 7)); C(get_int(d, SOL_SOCKET, SO_RCVLOWAT)); C(set_int(d, SOL_SOCKET, SO_RCVLOWAT, 1)); set_timeout(d, SO_RCVTIMEO, 100); long t = now_ms(); C(recv(fd, buf, 1, 0)); took(t, 100); step(); C(shutdown(d, SHUT_WR)); step(); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); state(d); state(fd); C(send(fd, "x", 1, 0));
}
CASE(close_range_takes_the_socket) {
    int d = C(dup2(fd, 50));
    if (!server) { C(close_range(fd, 20, 0)); C(recv(fd, buf, 1, 0)); put(d, 100, 1); get(d, 100, 2); }
    else { get(fd, 100, 1); put(fd, 100, 2); }
    step();
    if (!server) { C(close_range(40, 60, 0)); C(recv(d, buf, 1, 0)); C(close_range(60, 40, 0)); C(close_range(3, 4, 0x1234)); }
    step();
    if (server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
}
CASE(close_range_cloexec_only_marks) {
    if (!server) { C(fcntl(fd, F_SETFD, 0)); C(close_range(3, 50, CLOSE_RANGE_CLOEXEC)); C(fcntl(fd, F_GETFD)); }
    step(); put(fd, 300, 1); get(fd, 300, 1);
}
CASE(closefrom_like_a_daemon) {
    /* Everything but the first few and the harness's own. */
    if (!server) { for (int i = 3; i < 100; i++) close(i); C(recv(fd, buf, 1, 0)); int s = C(socket(AF_INET, SOCK_STREAM, 0)); C(connect(s, (void *)&peer_addr, peer_addr_len)); warm(s); put(s, 300, 1); get(s, 300, 1); }
    else { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); close(fd); int s = Q(accept(listener, NULL, NULL)); warm(s); get(s, 300, 1); put(s, 300, 1); }
}
CASE(close_by_system_call) {
    /* Closed behind libc's back; the number is then something else. */
    SENDS("unread");
    if (!server) {
        need(fd, 6); C(recv(fd, buf, 6, 0)); syscall(SYS_close, fd);
        int f = syscall(SYS_openat, AT_FDCWD, "/dev/zero", O_RDWR); T(f == fd); memset(buf, 1, 4); C(read(f, buf, 4)); SHOW(buf, 4); C(write(f, "x", 1)); C(recv(f, buf, 1, 0)); close(f);
        int p[2]; syscall(SYS_pipe2, p, 0); T(p[0] == fd); C(write(p[1], "pipe", 4)); state(p[0]); C(read(p[0], buf, 10)); SHOW(buf, 4);
    }
    step();
    if (server) { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
}
CASE(other_socket_by_system_call) {
    /* dup2 by system call puts another connection under a number that the library knows. */
    int c = another();
    warm(c);
    step();
    if (!server) { syscall(SYS_dup2, c, fd); put(fd, 1000, 1); get(fd, 1000, 2); close(c); put(fd, 1000, 3); get(fd, 1000, 4); }
    else { wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); get(c, 1000, 1); put(c, 1000, 2); get(c, 1000, 3); put(c, 1000, 4); }
}
CASE(raw_system_calls_between_library_calls) {
    /* A statically linked part, or Go: reads by system call must not miss what came, nor writes jump the queue. */
    for (int i = 0; i < 5; i++) {
        step();
        if (server) { Q(send(fd, "lib1", 4, 0)); syscall(SYS_sendto, fd, "raw2", 4, 0, NULL, 0); Q(send(fd, "lib3", 4, 0)); }
        step();
        if (!server) { C(read_full(fd, buf, 12)); SHOW(buf, 12); }
    }
}
CASE(stdio_line_by_line) {
    FILE *in = fdopen(dup(fd), "r"), *o = fdopen(dup(fd), "w");
    char line[100];
    if (server) { for (int i = 0; i < 50; i++) { if (!fgets(line, sizeof line, in)) { out("fgets ended at %d", i); break; } fprintf(o, "echo %s", line); fflush(o); } C(fclose(in)); C(fclose(o)); C(close(fd)); }
    else { for (int i = 0; i < 50; i++) { fprintf(o, "line %d\n", i); C(fflush(o)); if (!fgets(line, sizeof line, in)) { out("fgets ended at %d", i); break; } if (i % 10 == 0) out("%s", strtok(line, "\n")); } C(fgets(line, 10, in) == NULL); C(feof(in)); C(ferror(in)); }
}
CASE(stdio_after_messages_lie_there) {
    SENDS("first line\nsecond line\nrest");
    if (!server) { need(fd, 27); FILE *f = fdopen(fd, "r+"); char line[100]; C(fgets(line, 100, f) != NULL); SHOW(line, strlen(line)); C(fgets(line, 100, f) != NULL); SHOW(line, strlen(line)); step(); C(fread(line, 1, 6, f)); SHOW(line, 6); C(fclose(f)); }
    else { step(); Q(send(fd, "!!", 2, 0)); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
}
CASE(stdio_writes_before_it_reads_what_lies_there) {
    SENDS("first line\nsecond line\nrest");
    if (!server) {
        need(fd, 27); char line[100]; FILE *f = fdopen(fd, "r+");
        T(fileno(f) == fd); poll_mask(fd, POLLIN, 0); C(recv(fd, line, 5, MSG_PEEK)); SHOW(line, 5);
        C(fprintf(f, "answer %d\n", 1)); C(fflush(f)); C(fgets(line, 100, f) != NULL); SHOW(line, strlen(line));
        C(getc(f)); C(ungetc('S', f)); C(fgets(line, 100, f) != NULL); SHOW(line, strlen(line)); C(ftell(f)); C(feof(f)); C(ferror(f));
        step(); C(fread(line, 1, 6, f)); SHOW(line, 6); C(fread(line, 1, 1, f)); C(feof(f)); C(fclose(f)); T(fcntl(fd, F_GETFD) == -1);
    } else { C(read_full(fd, buf, 9)); SHOW(buf, 9); step(); Q(send(fd, "!!", 2, 0)); C(shutdown(fd, SHUT_WR)); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
}
CASE(stdio_writes_beside_what_lies_there) {
    SENDS("0123456789");
    if (!server) { need(fd, 10); C(dprintf(fd, "number %d", 1)); C(recv(fd, buf, 4, 0)); SHOW(buf, 4); FILE *f = fdopen(dup(fd), "w"); C(fputs(" by stream", f) >= 0); C(fclose(f)); state(fd); C(recv(fd, buf, 100, 0)); SHOW(buf, 6); }
    else { C(read_full(fd, buf, 18)); SHOW(buf, 18); }
    step();
}
CASE(stdio_large) {
    FILE *f = fdopen(fd, server ? "w" : "r");
    if (server) { for (int i = 0; i < 20000; i++) fprintf(f, "number %d and some text\n", i); C(fclose(f)); }
    else { long n = 0; uint32_t h = 0; while (fgets(buf, 200, f)) { n++; h = h * 31 + hash(buf, strlen(buf)); } C(n); out("%08x", h); C(fclose(f)); }
}
CASE(dprintf_and_getline) {
    if (server) { for (int i = 0; i < 10; i++) C(dprintf(fd, "row %d %s\n", i, "text")); C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0)); }
    else { FILE *f = fdopen(fd, "r"); char *line = NULL; size_t cap = 0; long r; while ((r = getline(&line, &cap, f)) > 0) out("%ld %.*s", r, (int)r - 1, line); C(r); fclose(f); }
}
CASE(stdio_mixed_with_send) {
    FILE *f = fdopen(dup(fd), "w");
    if (server) { C(send(fd, "one ", 4, 0)); fputs("two ", f); fflush(f); C(send(fd, "three ", 6, 0)); fputs("four ", f); fflush(f); C(write(fd, "five", 4)); C(fclose(f)); step(); }
    else { C(read_full(fd, buf, 24 - 1)); SHOW(buf, 23); C(recv(fd, buf, 1, MSG_DONTWAIT)); step(); }
}
CASE(descriptor_limit_reached) {
    struct rlimit old, low;
    Q(getrlimit(RLIMIT_NOFILE, &old));
    if (!server) {
        int n = 0, f; low = old; low.rlim_cur = 40; C(setrlimit(RLIMIT_NOFILE, &low));
        while ((f = dup(fd)) >= 0) n++;
        C(errno == EMFILE); C(n); C(socket(AF_INET, SOCK_STREAM, 0)); C(open("/dev/null", O_RDONLY)); C(epoll_create1(0));
        put(fd, 500, 1); get(fd, 500, 2); 
        int max = fd; for (f = fd + 1; f < 40; f++) close(f); C(setrlimit(RLIMIT_NOFILE, &old)); CFD(socket(AF_INET, SOCK_STREAM, 0));
    } else { get(fd, 500, 1); put(fd, 500, 2); }
    step(); put(fd, 500, 3); get(fd, 500, 3);
}
CASE(accept_at_the_limit) {
    struct rlimit old, low;
    if (server) {
        Q(getrlimit(RLIMIT_NOFILE, &old)); low = old; low.rlim_cur = 20; Q(setrlimit(RLIMIT_NOFILE, &low));
        while (dup(fd) >= 0) {}
        step(); wait_in(listener); C(accept(listener, NULL, NULL)); C(accept(listener, NULL, NULL)); for (int i = 5; i < 20; i++) if (i != fd && i != listener) close(i); int c = CFD(accept(listener, NULL, NULL)); warm(c); get(c, 50, 1);
    } else { step(); int c = another(); warm(c); put(c, 50, 1); }
}
CASE(many_copies_one_after_the_other) {
    int d = fd;
    for (int i = 0; i < 60; i++) { int e = dup(d); close(d); d = e; if (server) { if (i % 3) { get(d, 20, i); put(d, 20, i); } } else if (i % 3) { put(d, 20, i); get(d, 20, i); } }
}
CASE(proc_and_fstat_of_copies) {
    struct stat a, b;
    int d = dup(fd);
    Q(fstat(fd, &a)); Q(fstat(d, &b)); T(a.st_ino == b.st_ino); unsigned long x = 0, y = 1; socklen_t l = sizeof x; Q(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &x, &l)); Q(getsockopt(d, SOL_SOCKET, SO_COOKIE, &y, &l)); T(x == y); T(syscall(SYS_kcmp, getpid(), getpid(), 0, fd, d) == 0);
}
