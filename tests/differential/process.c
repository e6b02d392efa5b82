/* fork(2), execve(2), posix_spawn(3), SCM_RIGHTS of unix(7): a connection in other processes' hands. */
#include "harness.h"
#include <spawn.h>
#include <sys/prctl.h>

extern char **environ;
static char buf[1 << 20];
static void reap(pid_t p, const char *who) {
    int status = -1;
    if (waitpid(p, &status, 0) != p) { out("%s: waitpid %s", who, strerrorname_np(errno)); return; }
    if (WIFEXITED(status)) out("%s exits %d", who, WEXITSTATUS(status)); else out("%s killed by %d", who, WTERMSIG(status));
}
/* Number of bytes read until EOF and echoed. */
static long echo(int fd) { char b[5000]; long r, n = 0; while ((r = read(fd, b, sizeof b)) > 0) { if (write_full(fd, b, r) != r) return -1; n += r; } return r < 0 ? r : n; }
static void ping(int fd, int n, int seed) { for (int i = 0; i < n; i++) { put(fd, 100 + i, seed + i); char b[4000], d[4000]; fill(d, 100 + i, seed + i); if (read_full(fd, b, 100 + i) != 100 + i || memcmp(b, d, 100 + i)) { out("ping %d differs", i); return; } } out("%d pings answered", n); }
static void pong(int fd, int n) { char b[4000]; for (int i = 0; i < n; i++) { if (read_full(fd, b, 100 + i) != 100 + i) { out("pong %d: short", i); return; } if (write_full(fd, b, 100 + i) != 100 + i) { out("pong %d: write", i); return; } } }

int helper(int argc, char **argv) {
    /* The transcript is on fd 100 unless marked otherwise. */
    if (argc && !strcmp(argv[0], "echo")) { long n = echo(atoi(argv[1])); return n < 0 ? 200 : n % 199; }
    if (argc && !strcmp(argv[0], "pong")) { pong(atoi(argv[1]), atoi(argv[2])); return 0; }
    if (argc && !strcmp(argv[0], "count")) { uint32_t h; long n = drain(atoi(argv[1]), &h); return (n + h) % 197; }
    if (argc && !strcmp(argv[0], "fd-open")) return fcntl(atoi(argv[1]), F_GETFD) >= 0;
    if (argc && !strcmp(argv[0], "receive")) { /* gets a connection by SCM_RIGHTS on fd 0 and answers on it */
        char c; union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr h; } u; struct iovec v = {&c, 1}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u};
        if (recvmsg(0, &m, 0) != 1 || m.msg_controllen < CMSG_LEN(sizeof(int))) return 201;
        int fd = *(int *)CMSG_DATA(&u.h); pong(fd, atoi(argv[1])); return 0;
    }
    return 99;
}
static char *self(void) { static char p[4096]; long n = readlink("/proc/self/exe", p, sizeof p - 1); p[n > 0 ? n : 0] = 0; return p; }
static void run_helper(char *a, char *b, char *c) { execl(self(), self(), "helper", a, b, c, (char *)NULL); _exit(98); }
static void keep_open(int fd) { Q(fcntl(fd, F_SETFD, 0)); }

/* A program gets the connection as its input, after 4 of n bytes were read here. */
static void gives_the_rest(int fd, int n, char *what) {
    need(fd, n); C(recv(fd, buf, 4, 0)); SHOW(buf, 4);
    pid_t p = fork();
    if (!p) { dup2(fd, 0); run_helper(what, "0", NULL); }
    C(close(fd)); reap(p, "program");
}
static void drained(int fd) { uint32_t h; long n = drain(fd, &h); out("%ld bytes %08x", n, h); }
CASE(given_on_after_the_sender_shut_down) {
    if (server) { put(fd, 5000, 1); C(shutdown(fd, SHUT_WR)); step(); drained(fd); }
    else { step(); gives_the_rest(fd, 5000, "echo"); }
}
CASE(given_on_after_much_was_sent_and_shut_down) {
    if (server) { put(fd, 40000, 2); C(shutdown(fd, SHUT_WR)); step(); drained(fd); }
    else { step(); gives_the_rest(fd, 40000, "echo"); }
}
CASE(given_on_after_the_sender_closed) {
    if (server) { put(fd, 5000, 3); C(close(fd)); step(); step(); }
    else { step(); gives_the_rest(fd, 5000, "count"); step(); }
}
CASE(given_on_while_the_sender_sends) {
    if (server) { for (int i = 0; i < 300; i++) { put(fd, 1000, i); if (i == 30) step(); } C(shutdown(fd, SHUT_WR)); drained(fd); }
    else { step(); gives_the_rest(fd, 31000, "echo"); }
}
/* MSG_DONTROUTE is the kernel's: its bytes lie behind those that went before, wherever these are. */
CASE(given_on_in_order_whatever_way_it_came) {
    if (server) { step(); for (int i = 0; i < 5; i++) { fill(buf, 700, i); Q(send(fd, buf, 500, 0)); Q(send(fd, buf + 500, 200, MSG_DONTROUTE)); } step(); C(shutdown(fd, SHUT_WR)); drained(fd); }
    else { step(); step(); gives_the_rest(fd, 3500, "echo"); }
}
CASE(given_on_by_a_parent_that_reads_on) {
    if (server) { put(fd, 6000, 1); step(); C(shutdown(fd, SHUT_WR)); step(); step(); drained(fd); }
    else {
        step(); need(fd, 6000); C(recv(fd, buf, 4, 0));
        int a[2]; char c; Q(pipe(a));
        pid_t p = fork();
        if (!p) { close(a[1]); read(a[0], &c, 1); dup2(fd, 0); run_helper("echo", "0", NULL); }
        step(); C(read_full(fd, buf, 1000)); out("%08x", hash(buf, 1000)); close(a[0]); write(a[1], "x", 1); close(a[1]); step(); C(close(fd)); reap(p, "program");
    }
}
CASE(child_uses_it) {
    if (server) { ping(fd, 20, 1); step(); C(recv(fd, buf, 1, 0)); }
    else { pid_t p = fork(); if (!p) { pong(fd, 20); _exit(0); } reap(p, "child"); step(); C(close(fd)); }
}
CASE(child_exits_untouched) {
    if (server) { for (int i = 0; i < 5; i++) { pong(fd, 5); } C(recv(fd, buf, 1, 0)); }
    else { for (int i = 0; i < 5; i++) { pid_t p = fork(); if (!p) _exit(i); reap(p, "child"); ping(fd, 5, i); } C(close(fd)); }
}
CASE(child_exits_by_exit_untouched) {
    /* exit(3) runs destructors: they must not touch the parent's connection. */
    if (server) { step(); for (int i = 0; i < 3; i++) pong(fd, 5); C(recv(fd, buf, 1, 0)); }
    else { Q(send(fd, "", 0, 0)); step(); for (int i = 0; i < 3; i++) { pid_t p = fork(); if (!p) exit(i); reap(p, "child"); ping(fd, 5, i); } C(shutdown(fd, SHUT_WR)); }
}
CASE(child_closes_parent_goes_on) {
    if (server) { pong(fd, 10); pong(fd, 10); C(recv(fd, buf, 1, 0)); }
    else { pid_t p = fork(); if (!p) { close(fd); _exit(0); } ping(fd, 10, 1); reap(p, "child"); ping(fd, 10, 2); C(close(fd)); }
}
CASE(parent_closes_child_serves) {
    if (server) { pid_t p = fork(); if (!p) { close(listener); long n = echo(fd); shutdown(fd, SHUT_WR); _exit(n == 3 * 145 ? 0 : 1); } C(close(fd)); reap(p, "child"); }
    else { for (int k = 0; k < 3; k++) ping(fd, 1, k); for (int k = 0; k < 3; k++) { put(fd, 45, k); get(fd, 45, k); } C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0)); }
}
CASE_RAW(accept_then_fork_each) {
    int l = -1, port = 0, c;
    if (server) { l = listen_at(AF_INET, "127.0.0.1", 0, 8); tell(port_of(l)); } else port = hear();
    for (int i = 0; i < 5; i++) {
        if (server) { c = Q(accept(l, NULL, NULL)); pid_t p = fork(); if (!p) { close(l); warm(c); long n = echo(c); _exit(n == 1545 ? 0 : 1); } close(c); reap(p, "child"); }
        else { c = connect_to(AF_INET, "127.0.0.1", port); warm(c); ping(c, 0, i); for (int k = 0; k < 15; k++) { put(c, 96 + k, k); get(c, 96 + k, k); } close(c); }
    }
}
CASE_RAW(preforked_children_accept) {
    int l = -1, port = 0, c;
    pid_t p[3];
    if (server) { l = listen_at(AF_INET, "127.0.0.1", 0, 8); for (int i = 0; i < 3; i++) if (!(p[i] = fork())) { for (int k = 0; k < 2; k++) { c = accept(l, NULL, NULL); if (c < 0) _exit(9); warm(c); echo(c); close(c); } _exit(0); } tell(port_of(l)); for (int i = 0; i < 3; i++) reap(p[i], "child"); }
    else { port = hear(); for (int i = 0; i < 6; i++) { c = connect_to(AF_INET, "127.0.0.1", port); warm(c); for (int k = 0; k < 10; k++) { put(c, 96 + k, k); get(c, 96 + k, k); } close(c); } }
}
CASE(parent_and_child_take_turns_reading) {
    if (server) { for (int i = 0; i < 10; i++) { step(); Q(send(fd, "0123456789", 10, 0)); step(); } step(); }
    else {
        int a[2], b[2]; char t; Q(pipe(a)); Q(pipe(b));
        pid_t p = fork();
        if (!p) { for (int i = 0; i < 5; i++) { if (read(a[0], &t, 1) != 1) _exit(1); long r = read_full(fd, buf, 10); out("child read %ld", r); write(b[1], "x", 1); } _exit(0); }
        for (int i = 0; i < 10; i++) { step(); step(); need(fd, 10); if (i % 2) { write(a[1], "x", 1); read(b[0], &t, 1); } else { long r = recv(fd, buf, 10, 0); out("parent read %ld", r); } C(recv(fd, buf, 1, MSG_DONTWAIT)); if (i % 2 == 0) SHOW(buf, 10); }
        step(); reap(p, "child");
    }
}
CASE(parent_and_child_take_turns_writing) {
    if (!server) { C(read_full(fd, buf, 100)); SHOW(buf, 100); C(recv(fd, buf, 1, 0)); }
    else {
        for (int i = 0; i < 10; i++) { char t[11]; snprintf(t, 11, "%s %d   ", i % 2 ? "parent" : "child ", i); if (i % 2) Q(send(fd, t, 10, 0)); else { pid_t p = fork(); if (!p) { send(fd, t, 10, 0); _exit(0); } waitpid(p, NULL, 0); } }
        C(close(fd));
    }
}
CASE(fork_with_unread_data) {
    /* What had arrived before the fork belongs to whoever reads first. */
    if (server) { Q(send(fd, "0123456789", 10, 0)); step(); step(); Q(send(fd, "abcdefghij", 10, 0)); step(); }
    else {
        step(); need(fd, 10); C(recv(fd, buf, 3, 0)); SHOW(buf, 3);
        pid_t p = fork(); if (!p) { long r = recv(fd, buf, 4, 0); out("child %ld", r); SHOW(buf, 4); _exit(0); } reap(p, "child");
        C(recv(fd, buf, 100, 0)); SHOW(buf, 3); step();
        p = fork(); if (!p) { wait_in(fd); state(fd); _exit(0); } reap(p, "child");
        step(); need(fd, 10); readable_bytes(fd); C(recv(fd, buf, 100, 0)); SHOW(buf, 10);
    }
}
CASE(fork_with_sent_but_unread_data) {
    if (server) { Q(send(fd, "parent ", 7, 0)); pid_t p = fork(); if (!p) { send(fd, "child ", 6, 0); _exit(0); } reap(p, "child"); Q(send(fd, "parent", 6, 0)); step(); }
    else { wait_peer_asleep(); C(read_full(fd, buf, 19)); SHOW(buf, 19); step(); }
}
CASE(child_in_background_sends_parent_reads) {
    /* One process per direction. */
    if (server) { pid_t p = fork(); if (!p) { put(fd, 40000, 5); _exit(0); } get(fd, 40000, 6); reap(p, "child"); }
    else { pid_t p = fork(); if (!p) { put(fd, 40000, 6); _exit(0); } get(fd, 40000, 5); reap(p, "child"); }
}
CASE(last_close_sends_eof) {
    if (server) { int a[2]; char t; Q(pipe(a)); pid_t p = fork(); if (!p) { close(a[1]); read(a[0], &t, 1); _exit(0); } C(close(fd)); step(); step(); close(a[1]); reap(p, "child"); step(); }
    else { step(); C(recv(fd, buf, 1, MSG_DONTWAIT)); state(fd); step(); step(); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
}
CASE(child_killed) {
    if (server) { pid_t p = fork(); if (!p) { send(fd, "from the child", 14, 0); raise(SIGKILL); } reap(p, "child"); C(send(fd, "from the parent", 15, 0)); C(close(fd)); }
    else { C(read_full(fd, buf, 29)); SHOW(buf, 29); C(recv(fd, buf, 1, 0)); }
}
CASE(parent_dies_child_goes_on) {
    if (server) { int me = getpid(); pid_t p = fork(); if (p) { tell(1); _exit(0); } while (getppid() == me) nap_ms(1); pong(fd, 10); _exit(0); }
    else { hear(); ping(fd, 10, 3); C(recv(fd, buf, 1, 0)); }
}
CASE(daemon_by_double_fork) {
    if (server) { pid_t p = fork(); if (!p) { setsid(); if (fork()) _exit(0); pong(fd, 10); _exit(0); } reap(p, "first child"); C(close(fd)); step(); }
    else { ping(fd, 10, 3); C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0)); step(); }
}
CASE(vfork_and_exec) {
    if (server) { for (int i = 0; i < 3; i++) { pid_t p = vfork(); if (!p) { execl("/bin/true", "true", (char *)NULL); _exit(9); } reap(p, "child"); pong(fd, 5); } }
    else for (int i = 0; i < 3; i++) ping(fd, 5, i);
}
CASE(system_and_popen) {
    if (server) for (int i = 0; i < 3; i++) { C(system("exit 3") >> 8); FILE *f = popen("echo from popen", "r"); char line[50] = ""; C(fgets(line, 50, f) != NULL); SHOW(line, 11); C(pclose(f)); pong(fd, 5); }
    else for (int i = 0; i < 3; i++) ping(fd, 5, i);
}
CASE(inetd_cat) {
    if (server) { pid_t p = fork(); if (!p) { dup2(fd, 0); dup2(fd, 1); close(fd); execl("/bin/cat", "cat", (char *)NULL); _exit(9); } C(close(fd)); reap(p, "cat"); }
    else { for (int i = 1; i < 6; i++) { put(fd, i * 1000, i); get(fd, i * 1000, i); } C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0)); }
}
CASE(inetd_with_unread_data) {
    /* The request lies there before the program that reads it runs. */
    if (server) { step(); need(fd, 22); C(recv(fd, buf, 8, 0)); SHOW(buf, 8); pid_t p = fork(); if (!p) { dup2(fd, 0); dup2(fd, 1); execl("/bin/cat", "cat", (char *)NULL); _exit(9); } C(close(fd)); step(); reap(p, "cat"); }
    else { C(send(fd, "consumednot yet consumed", 24, 0)); step(); step(); C(read_full(fd, buf, 16)); SHOW(buf, 16); C(send(fd, "more", 4, 0)); C(read_full(fd, buf, 4)); SHOW(buf, 4); C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0)); }
}
CASE(inetd_shell) {
    if (server) { pid_t p = fork(); if (!p) { dup2(fd, 0); dup2(fd, 1); execl("/bin/sh", "sh", "-c", "while read a b; do echo \"$b $a\"; done; echo done", (char *)NULL); _exit(9); } C(close(fd)); reap(p, "sh"); }
    else { C(send(fd, "one two\nthree four\n", 19, 0)); C(read_full(fd, buf, 19)); SHOW(buf, 19); C(send(fd, "x y\n", 4, 0)); C(read_full(fd, buf, 4)); SHOW(buf, 4); C(shutdown(fd, SHUT_WR)); C(read_full(fd, buf, 10)); SHOW(buf, 5); }
}
CASE(exec_with_inherited_descriptor) {
    char n[10];
    snprintf(n, 10, "%d", fd);
    if (server) { keep_open(fd); pid_t p = fork(); if (!p) run_helper("pong", n, "15"); C(close(fd)); reap(p, "helper"); }
    else { ping(fd, 15, 2); C(recv(fd, buf, 1, 0)); }
}
CASE(exec_in_place) {
    /* The process itself becomes another program, without fork. */
    char n[10];
    snprintf(n, 10, "%d", fd);
    if (server) { keep_open(fd); tell(1); run_helper("pong", n, "15"); }
    else { hear(); ping(fd, 15, 2); C(recv(fd, buf, 1, 0)); }
}
CASE(exec_without_the_library) {
    char n[10];
    snprintf(n, 10, "%d", fd);
    if (server) { keep_open(fd); pid_t p = fork(); if (!p) { unsetenv("LD_PRELOAD"); run_helper("pong", n, "15"); } C(close(fd)); reap(p, "helper"); }
    else { ping(fd, 15, 2); C(recv(fd, buf, 1, 0)); }
}
CASE(exec_closes_what_is_cloexec) {
    char n[10];
    snprintf(n, 10, "%d", fd);
    if (server) { T(fcntl(fd, F_GETFD) == FD_CLOEXEC); pid_t p = fork(); if (!p) run_helper("fd-open", n, "0"); reap(p, "helper"); pong(fd, 5); keep_open(fd); p = fork(); if (!p) run_helper("fd-open", n, "0"); reap(p, "helper"); pong(fd, 5); }
    else { ping(fd, 5, 2); ping(fd, 5, 3); }
}
CASE(exec_fails_and_the_program_goes_on) {
    if (server) { keep_open(fd); C(execl("/nonexistent", "x", (char *)NULL)); pong(fd, 10); char *a[] = {"x", NULL}; C(execve("/dev/null", a, environ)); pong(fd, 10); }
    else { ping(fd, 10, 1); ping(fd, 10, 2); }
}
CASE(leaked_into_a_child_that_ignores_it) {
    /* Not CLOEXEC, but the executed program does not know of it: the parent's connection goes on; EOF only when both are gone. */
    if (server) { keep_open(fd); int a[2]; Q(pipe(a)); pid_t p = fork(); if (!p) { dup2(a[0], 0); close(a[1]); execl("/bin/cat", "cat", (char *)NULL); _exit(9); } close(a[0]); pong(fd, 10); C(close(fd)); step(); step(); close(a[1]); reap(p, "cat"); step(); }
    else { ping(fd, 10, 1); step(); C(recv(fd, buf, 1, MSG_DONTWAIT)); step(); step(); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
}
CASE(spawn_with_actions) {
    if (server) {
        posix_spawn_file_actions_t a; pid_t p; char *args[] = {"cat", NULL};
        posix_spawn_file_actions_init(&a); posix_spawn_file_actions_adddup2(&a, fd, 0); posix_spawn_file_actions_adddup2(&a, fd, 1); posix_spawn_file_actions_addclose(&a, fd);
        C(posix_spawn(&p, "/bin/cat", &a, NULL, args, environ)); C(close(fd)); reap(p, "cat");
    } else { for (int i = 1; i < 4; i++) { put(fd, i * 1000, i); get(fd, i * 1000, i); } C(shutdown(fd, SHUT_WR)); C(recv(fd, buf, 1, 0)); }
}
static long pass(int via, int fd) {
    union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr h; } u = {0};
    struct iovec v = {"f", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u};
    u.h.cmsg_len = CMSG_LEN(sizeof(int)); u.h.cmsg_level = SOL_SOCKET; u.h.cmsg_type = SCM_RIGHTS; *(int *)CMSG_DATA(&u.h) = fd;
    return sendmsg(via, &m, 0);
}
static int take(int via) {
    char c; union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr h; } u;
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u};
    if (recvmsg(via, &m, MSG_CMSG_CLOEXEC) != 1 || m.msg_controllen < CMSG_LEN(sizeof(int))) return -1;
    return *(int *)CMSG_DATA(&u.h);
}
CASE_RAW(passed_to_an_unrelated_process) {
    /* A worker forked before the connection exists gets it in mid-stream. */
    int un[2];
    pid_t p = -1;
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
    if (server) { p = fork(); if (!p) { int c = take(un[1]); if (c < 0) _exit(1); pong(c, 20); long n = echo(c); _exit(n == 1000 ? 0 : 2); } }
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 4) : -1, c = pair_via(l, AF_INET, "127.0.0.1");
    warm(c);
    if (server) { pong(c, 5); C(pass(un[0], c)); C(close(c)); reap(p, "worker"); }
    else { ping(c, 5, 1); ping(c, 20, 2); put(c, 1000, 3); get(c, 1000, 3); C(shutdown(c, SHUT_WR)); C(recv(c, buf, 1, 0)); }
}
CASE_RAW(passed_with_unread_data) {
    int un[2];
    pid_t p = -1;
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
    if (server) { p = fork(); if (!p) { int c = take(un[1]); need(c, 6); long r = recv(c, buf, 100, 0); out("worker %ld", r); SHOW(buf, r); write_full(c, "answer", 6); _exit(0); } }
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 4) : -1, c = pair_via(l, AF_INET, "127.0.0.1");
    warm(c);
    if (server) { Q(send(c, "reply before ", 13, 0)); step(); need(c, 10); C(recv(c, buf, 4, 0)); SHOW(buf, 4); Q(pass(un[0], c)); Q(close(c)); reap(p, "worker"); }
    else { C(send(c, "0123456789", 10, 0)); step(); C(read_full(c, buf, 19)); SHOW(buf, 19); C(recv(c, buf, 1, 0)); }
}
CASE_RAW(passed_with_unread_data_below_the_mark) {
    /* The worker is woken by the mark, as the program set it, and sees that. */
    int un[2];
    pid_t p = -1;
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
    if (server) {
        p = fork();
        if (!p) {
            int c = take(un[1]);
            C(get_int(c, SOL_SOCKET, SO_RCVLOWAT)); need(c, 99); poll_mask(c, POLLIN, 30);
            write_full(c, "go on", 5);
            poll_mask(c, POLLIN, 10000);
            long r = recv(c, buf, 200, 0); out("worker %ld", r); _exit(0);
        }
    }
    int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 4) : -1, c = pair_via(l, AF_INET, "127.0.0.1");
    warm(c);
    if (server) { Q(send(c, "go on", 5, 0)); step(); need(c, 60); C(set_int(c, SOL_SOCKET, SO_RCVLOWAT, 100)); C(get_int(c, SOL_SOCKET, SO_RCVLOWAT)); Q(pass(un[0], c)); Q(close(c)); reap(p, "worker"); }
    else { C(send(c, buf, 60, 0)); step(); C(read_full(c, buf, 5)); C(send(c, buf, 39, 0)); C(read_full(c, buf, 5)); C(send(c, buf, 1, 0)); C(recv(c, buf, 1, 0)); }
}
CASE_RAW(passed_to_an_executed_program) {
    for (int plain = 0; plain < 2; plain++) {
        int un[2];
        pid_t p = -1;
        Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
        if (server) { p = fork(); if (!p) { dup2(un[1], 0); if (plain) unsetenv("LD_PRELOAD"); run_helper("receive", "20", "0"); } }
        int l = server ? listen_at(AF_INET, "127.0.0.1", 0, 4) : -1, c = pair_via(l, AF_INET, "127.0.0.1");
        warm(c);
        if (server) { pong(c, 5); C(pass(un[0], c)); C(close(c)); reap(p, "program"); close(l); }
        else { ping(c, 5, 1); ping(c, 20, 2); C(recv(c, buf, 1, 0)); }
        close(un[0]); close(un[1]); close(c);
    }
}
CASE(passed_to_oneself) {
    int un[2], c;
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
    if (server) { C(pass(un[0], fd)); c = take(un[1]); T(c > fd); pong(c, 5); C(close(fd)); pong(c, 5); C(close(c)); }
    else { ping(fd, 5, 1); ping(fd, 5, 2); C(recv(fd, buf, 1, 0)); }
}
CASE(passed_and_never_received) {
    /* In flight when everybody closes: the connection ends then. */
    int un[2];
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
    if (server) { C(pass(un[0], fd)); C(close(fd)); step(); step(); C(close(un[0])); C(close(un[1])); step(); }
    else { step(); C(recv(fd, buf, 1, MSG_DONTWAIT)); step(); step(); wait_ev(fd, POLLRDHUP); C(recv(fd, buf, 1, 0)); }
}
CASE_RAW(passed_listener) {
    int un[2], l = -1, c;
    pid_t p = -1;
    Q(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
    if (server) { p = fork(); if (!p) { int g = take(un[1]); c = accept(g, NULL, NULL); if (c < 0) _exit(1); warm(c); pong(c, 10); _exit(0); } l = listen_at(AF_INET, "127.0.0.1", 0, 4); C(pass(un[0], l)); int port = port_of(l); C(close(l)); tell(port); reap(p, "worker"); }
    else { c = connect_to(AF_INET, "127.0.0.1", hear()); warm(c); ping(c, 10, 1); C(recv(c, buf, 1, 0)); }
}
CASE(both_sides_fork_many_times) {
    for (int i = 0; i < 8; i++) { pid_t p = fork(); if (!p) _exit(0); if (server) pong(fd, 3); else ping(fd, 3, i); waitpid(p, NULL, 0); }
}
CASE(pidfd_takes_a_copy) {
    /* pidfd_getfd: a copy appears in another process with nobody in this one calling anything. */
    if (server) {
        pid_t me = getpid(); int a[2]; char t; Q(pipe(a)); prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); 
        pid_t p = fork();
        if (!p) { close(fd); int pf = syscall(SYS_pidfd_open, me, 0), c = syscall(SYS_pidfd_getfd, pf, fd, 0); if (c < 0) _exit(50); read(a[0], &t, 1); if (t == 'x') pong(c, 5); _exit(0); }
        nap_ms(0); pong(fd, 5); step(); write(a[1], "x", 1); reap(p, "child"); pong(fd, 5);
    } else { ping(fd, 5, 1); step(); ping(fd, 5, 2); ping(fd, 5, 3); }
}
CASE(waiting_child_and_parent) {
    /* Both sleep in poll on the same connection; both are woken. */
    if (server) { tell(0); step(); }
    else {
        hear(); int a[2]; Q(pipe(a)); pid_t p = fork(); if (!p) { struct pollfd q = {fd, POLLIN, 0}; _exit(poll(&q, 1, 10000) == 1 && q.revents == POLLIN ? 0 : 1); }
        wait_asleep(p, p); step(); poll_mask(fd, POLLIN, 10000); reap(p, "child"); C(recv(fd, buf, 10, 0));
    }
    if (server) Q(send(fd, "wake", 4, 0));
    step();
}
