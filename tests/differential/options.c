/* socket(7), tcp(7), ioctl(2): options and names, before, while and after a connection. */
#include "harness.h"

static char buf[1 << 20];
static void get_opt(int fd, int level, int name, const char *text) {
    int v = -99;
    socklen_t l = sizeof v;
    errno = 0;
    int r = getsockopt(fd, level, name, &v, &l);
    if (r) out("get %s: %s", text, strerrorname_np(errno)); else out("get %s: %d, length %d", text, v, (int)l);
}
static void set_opt(int fd, int level, int name, int v, const char *text) {
    errno = 0;
    int r = set_int(fd, level, name, v);
    out("set %s to %d: %s", text, v, r ? strerrorname_np(errno) : "ok");
    get_opt(fd, level, name, text);
}
#define GET(level, name) get_opt(fd, level, name, #name)
#define SET(level, name, v) set_opt(fd, level, name, v, #name)

CASE(what_it_is) { GET(SOL_SOCKET, SO_TYPE); GET(SOL_SOCKET, SO_DOMAIN); GET(SOL_SOCKET, SO_PROTOCOL); GET(SOL_SOCKET, SO_ACCEPTCONN); GET(SOL_SOCKET, SO_ERROR); if (server) { get_opt(listener, SOL_SOCKET, SO_ACCEPTCONN, "listener's SO_ACCEPTCONN"); get_opt(listener, SOL_SOCKET, SO_TYPE, "listener's SO_TYPE"); } }
CASE(socket_options_set_and_get) {
    SET(SOL_SOCKET, SO_KEEPALIVE, 1); SET(SOL_SOCKET, SO_KEEPALIVE, 0); SET(SOL_SOCKET, SO_REUSEADDR, 1); SET(SOL_SOCKET, SO_REUSEPORT, 1); SET(SOL_SOCKET, SO_OOBINLINE, 1); SET(SOL_SOCKET, SO_OOBINLINE, 0); SET(SOL_SOCKET, SO_PRIORITY, 3); SET(SOL_SOCKET, SO_DONTROUTE, 0); SET(SOL_SOCKET, SO_BROADCAST, 1); SET(SOL_SOCKET, SO_RCVLOWAT, 5); SET(SOL_SOCKET, SO_RCVLOWAT, 1); SET(SOL_SOCKET, SO_SNDLOWAT, 5); SET(SOL_SOCKET, SO_DEBUG, 0); SET(SOL_SOCKET, SO_PASSCRED, 1); SET(SOL_SOCKET, SO_TIMESTAMP, 1); SET(SOL_SOCKET, SO_TIMESTAMP, 0); SET(SOL_SOCKET, SO_BUSY_POLL, 0); SET(SOL_SOCKET, SO_MARK, 0); SET(SOL_SOCKET, SO_RXQ_OVFL, 1); SET(SOL_SOCKET, SO_NO_CHECK, 0); SET(SOL_SOCKET, SO_LOCK_FILTER, 0); SET(SOL_SOCKET, SO_ZEROCOPY, 0); SET(SOL_SOCKET, SO_INCOMING_CPU, 0); SET(SOL_SOCKET, SO_ACCEPTCONN, 1); SET(SOL_SOCKET, SO_TYPE, 1);
    step(); put(fd, 100, 1); get(fd, 100, 1);
}
CASE(tcp_options_set_and_get) {
    SET(SOL_TCP, TCP_NODELAY, 1); SET(SOL_TCP, TCP_NODELAY, 0); SET(SOL_TCP, TCP_NODELAY, 77); SET(SOL_TCP, TCP_CORK, 1); SET(SOL_TCP, TCP_CORK, 0); SET(SOL_TCP, TCP_KEEPIDLE, 33); SET(SOL_TCP, TCP_KEEPINTVL, 34); SET(SOL_TCP, TCP_KEEPCNT, 5); SET(SOL_TCP, TCP_SYNCNT, 3); SET(SOL_TCP, TCP_LINGER2, 7); SET(SOL_TCP, TCP_USER_TIMEOUT, 12345); SET(SOL_TCP, TCP_QUICKACK, 1); SET(SOL_TCP, TCP_DEFER_ACCEPT, 0); SET(SOL_TCP, TCP_NOTSENT_LOWAT, 100000); SET(SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1); SET(SOL_TCP, TCP_THIN_DUPACK, 0); SET(SOL_TCP, TCP_INQ, 0); SET(SOL_TCP, TCP_KEEPIDLE, 0); SET(SOL_TCP, TCP_KEEPCNT, 1000); SET(SOL_TCP, TCP_FASTOPEN, 0); SET(SOL_TCP, TCP_WINDOW_CLAMP, 0); SET(SOL_TCP, TCP_REPAIR, 2);
    step(); put(fd, 100, 1); get(fd, 100, 1);
}
/* On loopback the value is half of the largest window that the peer has shown: 65,483 in the SYN, 65,536 from the first scaled acknowledgement
   that was seen before a send (tcp_bound_to_half_wnd). When that is depends on timing, on the plain kernel too. */
static void get_maximum_segment(int fd) {
    int v = get_int(fd, SOL_TCP, TCP_MAXSEG);
    if (v == 65483 / 2 || v == 65536 / 2) out("get TCP_MAXSEG: half of the window"); else out("get TCP_MAXSEG: %d", v);
}
CASE(maximum_segment) {
    static const int values[] = {1000, 1, 1000000};
    get_maximum_segment(fd);
    for (int i = 0; i < 3; i++) {
        errno = 0;
        int r = set_int(fd, SOL_TCP, TCP_MAXSEG, values[i]);
        out("set TCP_MAXSEG to %d: %s", values[i], r ? strerrorname_np(errno) : "ok");
        get_maximum_segment(fd);
    }
    step(); put(fd, 50000, 1); get(fd, 50000, 1);
}
CASE(buffer_sizes) {
    GET(SOL_SOCKET, SO_SNDBUF); GET(SOL_SOCKET, SO_RCVBUF);
    SET(SOL_SOCKET, SO_SNDBUF, 65536); SET(SOL_SOCKET, SO_RCVBUF, 65536); SET(SOL_SOCKET, SO_SNDBUF, 1); SET(SOL_SOCKET, SO_RCVBUF, 1); SET(SOL_SOCKET, SO_SNDBUF, 1000000); SET(SOL_SOCKET, SO_RCVBUF, 1000000); SET(SOL_SOCKET, SO_SNDBUF, -1); SET(SOL_SOCKET, SO_RCVBUF, INT_MAX);
    SET(SOL_SOCKET, SO_SNDBUFFORCE, 300000); GET(SOL_SOCKET, SO_SNDBUF); SET(SOL_SOCKET, SO_RCVBUFFORCE, 300000); GET(SOL_SOCKET, SO_RCVBUF);
    SET(SOL_SOCKET, SO_BUF_LOCK, 3); SET(SOL_SOCKET, SO_BUF_LOCK, 0);
    step(); if (server) { put(fd, 300000, 1); get(fd, 300000, 2); } else { get(fd, 300000, 1); put(fd, 300000, 2); }
}
CASE(buffer_sizes_untouched_by_traffic) {
    GET(SOL_SOCKET, SO_SNDBUF);
    step();
    for (int i = 0; i < 20; i++) { if (server) { put(fd, 100, i); get(fd, 100, i); } else { get(fd, 100, i); put(fd, 100, i); } }
    GET(SOL_SOCKET, SO_SNDBUF); GET(SOL_SOCKET, SO_RCVBUF);
}
CASE(small_buffers_limit_what_is_in_flight) {
    /* A sender with a small buffer to a reader with a small one does not get megabytes ahead. */
    if (server) { Q(set_int(fd, SOL_SOCKET, SO_SNDBUF, 10000)); step(); long n = fill_up(fd); T(n < 2000000); tell(n); step(); }
    else { Q(set_int(fd, SOL_SOCKET, SO_RCVBUF, 10000)); step(); long n = hear(), got = 0, r; while (got < n && (r = read(fd, buf, 100000)) > 0) got += r; T(got == n); step(); }
}
CASE(option_lengths) {
    char b[300];
    socklen_t l;
    memset(b, 0x77, sizeof b);
    l = 1; C(getsockopt(fd, SOL_SOCKET, SO_TYPE, b, &l)); out("length %d first bytes %02x %02x", (int)l, b[0] & 255, b[1] & 255);
    l = 0; C(getsockopt(fd, SOL_SOCKET, SO_TYPE, b, &l)); out("length %d", (int)l);
    l = 300; C(getsockopt(fd, SOL_SOCKET, SO_TYPE, b, &l)); out("length %d", (int)l);
    l = -1; C(getsockopt(fd, SOL_SOCKET, SO_TYPE, b, &l));
    l = 1; C(getsockopt(fd, SOL_TCP, TCP_NODELAY, b, &l)); out("length %d", (int)l);
    l = 2; C(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, b, &l)); out("length %d", (int)l);
    l = 4; C(getsockopt(fd, SOL_SOCKET, SO_TYPE, (void *)-1, &l)); C(getsockopt(fd, SOL_SOCKET, SO_TYPE, b, (void *)-1)); C(getsockopt(fd, SOL_SOCKET, SO_TYPE, NULL, NULL));
    l = 16; C(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, b, &l)); out("length %d", (int)l); l = 8; C(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, b, &l)); out("length %d", (int)l);
    C(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, b, 3)); C(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, b, 0)); C(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, 4)); C(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, (void *)-1, 4)); C(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, b, -1)); C(setsockopt(fd, SOL_TCP, TCP_NODELAY, b, 1)); C(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, b, 2)); C(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, (void *)-1, 4)); C(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, (void *)-1, 16));
}
CASE(unknown_options) {
    GET(SOL_SOCKET, 9999); SET(SOL_SOCKET, 9999, 1); GET(SOL_TCP, 9999); SET(SOL_TCP, 9999, 1); GET(9999, 1); SET(9999, 1, 1); GET(IPPROTO_UDP, 1); SET(IPPROTO_UDP, 1, 1); GET(SOL_IP, 9999); GET(SOL_IPV6, IPV6_V6ONLY); SET(SOL_IPV6, IPV6_V6ONLY, 1); SET(-1, -1, 0);
    int gone = dup(fd), f = open("/dev/null", O_RDWR); close(gone);
    C(get_int(gone, SOL_SOCKET, SO_TYPE)); C(set_int(gone, SOL_SOCKET, SO_KEEPALIVE, 1)); C(get_int(f, SOL_SOCKET, SO_TYPE)); C(set_int(f, SOL_TCP, TCP_NODELAY, 1));
}
CASE(ip_options) { SET(SOL_IP, IP_TOS, 0x10); SET(SOL_IP, IP_TTL, 33); GET(SOL_IP, IP_MTU); SET(SOL_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO); SET(SOL_IP, IP_RECVERR, 1); SET(SOL_IP, IP_FREEBIND, 1); SET(SOL_IP, IP_TRANSPARENT, 0); step(); put(fd, 10, 1); get(fd, 10, 1); }
CASE(tcp_info_state) {
    struct tcp_info i;
    socklen_t l;
#define INFO() do { memset(&i, 0, sizeof i); l = sizeof i; C(getsockopt(fd, SOL_TCP, TCP_INFO, &i, &l)); out("  state %d, ca %d, retransmits %d, length>=100 %d", i.tcpi_state, i.tcpi_ca_state, i.tcpi_retransmits, l >= 100); } while (0)
    INFO(); l = 1; C(getsockopt(fd, SOL_TCP, TCP_INFO, &i, &l)); out("  %d %d", (int)l, i.tcpi_state); if (server) { socklen_t ll = sizeof i; Q(getsockopt(listener, SOL_TCP, TCP_INFO, &i, &ll)); out("  listener %d", i.tcpi_state); }
    step();
    if (server) Q(shutdown(fd, SHUT_WR));
    step();
    if (!server) wait_ev(fd, POLLRDHUP);
    step();
    /* The acknowledgement of a FIN may be delayed. */
    for (int k = 0; k < 500 && server; k++) { l = sizeof i; Q(getsockopt(fd, SOL_TCP, TCP_INFO, &i, &l)); if (i.tcpi_state != TCP_FIN_WAIT1) break; nap_ms(2); }
    INFO();
    step();
    if (!server) { Q(shutdown(fd, SHUT_WR)); }
    step();
    if (server) { wait_ev(fd, POLLHUP); }
    step();
    for (int k = 0; k < 100 && !server; k++) { l = sizeof i; Q(getsockopt(fd, SOL_TCP, TCP_INFO, &i, &l)); if (i.tcpi_state == TCP_CLOSE) break; nap_ms(5); }
    INFO();
}
CASE(tcp_info_byte_counts) {
    /* What the program sent and read, by the kernel's count: a monitor must not see a dead connection. */
    struct tcp_info i;
    socklen_t l = sizeof i;
    for (int k = 0; k < 10; k++) { if (server) { put(fd, 1000, k); get(fd, 1000, k); } else { get(fd, 1000, k); put(fd, 1000, k); } }
    Q(getsockopt(fd, SOL_TCP, TCP_INFO, &i, &l)); out("state %d", i.tcpi_state);
}
CASE(congestion_and_names) {
    char name[32] = "";
    socklen_t l = sizeof name;
    C(setsockopt(fd, SOL_TCP, TCP_CONGESTION, "reno", 4)); C(getsockopt(fd, SOL_TCP, TCP_CONGESTION, name, &l)); out("%s %d", name, (int)l); C(setsockopt(fd, SOL_TCP, TCP_CONGESTION, "nonsense", 8)); C(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2)); l = sizeof name; C(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &l)); out("%s", name);
    C(setsockopt(fd, SOL_TCP, TCP_ULP, "nonsense", 8)); l = sizeof name; C(getsockopt(fd, SOL_TCP, TCP_ULP, name, &l)); out("%d", (int)l);
    step(); put(fd, 10, 1); get(fd, 10, 1);
}
CASE(peer_credentials) {
    struct ucred u = {1, 1, 1};
    socklen_t l = sizeof u;
    C(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &l)); out("%d %d %d, %d", u.pid, (int)u.uid, (int)u.gid, (int)l);
    char b[64]; l = sizeof b; C(getsockopt(fd, SOL_SOCKET, SO_PEERSEC, b, &l) == 0 || errno == ENOPROTOOPT);
}
CASE(cookie_stays) {
    unsigned long a = 1, b = 2;
    socklen_t l = sizeof a;
    C(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &a, &l)); step(); put(fd, 10, 1); get(fd, 10, 1); C(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &b, &l)); T(a == b && a);
}
CASE(bytes_waiting) {
    int n;
    readable_bytes(fd);
    step();
    if (server) { Q(set_int(fd, SOL_TCP, TCP_NODELAY, 1)); Q(send(fd, buf, 100, 0)); }
    step();
    if (!server) { need(fd, 100); readable_bytes(fd); C(recv(fd, buf, 30, 0)); readable_bytes(fd); C(recv(fd, buf, 30, MSG_PEEK)); readable_bytes(fd); }
    step();
    if (server) Q(send(fd, buf, 1000, 0));
    step();
    if (!server) { need(fd, 1070); readable_bytes(fd); C(recv(fd, buf, 10000, 0)); readable_bytes(fd); }
    if (server) { n = -1; C(ioctl(listener, FIONREAD, &n)); C(ioctl(fd, FIONREAD, (void *)-1)); C(ioctl(fd, FIONREAD, NULL)); }
    step();
    if (server) { Q(send(fd, buf, 10, 0)); Q(shutdown(fd, SHUT_WR)); }
    step();
    if (!server) { wait_ev(fd, POLLRDHUP); readable_bytes(fd); C(recv(fd, buf, 100, 0)); readable_bytes(fd); C(recv(fd, buf, 100, 0)); readable_bytes(fd); }
}
CASE(bytes_not_yet_acknowledged) {
    int n = -1;
    C(ioctl(fd, SIOCOUTQ, &n) == 0);
    step();
    if (server) { for (int i = 0; i < 20; i++) Q(send(fd, buf, 500, 0)); }
    else T(read_full(fd, buf, 10000) == 10000);
    step();
    for (int i = 0; i < 2000; i++) { Q(ioctl(fd, SIOCOUTQ, &n)); if (n == 0) break; nap_ms(2); }
    C(n); for (int i = 0; i < 2000; i++) { Q(ioctl(fd, SIOCOUTQNSD, &n)); if (n == 0) break; nap_ms(2); } C(n);
    step();
    if (server) { long f = fill_up(fd); Q(ioctl(fd, SIOCOUTQ, &n)); T(n > 0 && n <= f); tell(f); C(ioctl(fd, SIOCOUTQ, (void *)-1)); int l = -1; C(ioctl(listener, SIOCOUTQ, &l)); }
    else { long f = hear(), r; while (f > 0 && (r = read(fd, buf, sizeof buf)) > 0) f -= r; C(f); }
    step();
}
CASE(nonblocking_by_ioctl) {
    int on = 1, off = 0;
    C(ioctl(fd, FIONBIO, &on)); T(fcntl(fd, F_GETFL) & O_NONBLOCK); C(recv(fd, buf, 1, 0)); C(read(fd, buf, 1)); C(ioctl(fd, FIONBIO, &off)); T(!(fcntl(fd, F_GETFL) & O_NONBLOCK)); C(fcntl(fd, F_GETFL)); C(ioctl(fd, FIONBIO, (void *)-1)); C(ioctl(fd, FIOCLEX)); C(fcntl(fd, F_GETFD)); C(ioctl(fd, FIONCLEX)); C(fcntl(fd, F_GETFD)); C(ioctl(fd, TIOCGWINSZ, buf)); C(ioctl(fd, 0x12345678, buf)); C(ioctl(fd, FIOASYNC, &off)); C(ioctl(fd, FIOGETOWN, &on)); C(isatty(fd));
    step();
    if (server) { wait_peer_asleep(); Q(send(fd, "x", 1, 0)); } else C(recv(fd, buf, 10, 0));
    step();
}
CASE(names) {
    struct sockaddr_in a, b, big[4];
    socklen_t l = sizeof a;
    C(getsockname(fd, (void *)&a, &l)); out("%d %s %d", a.sin_family, inet_ntoa(a.sin_addr), (int)l); l = sizeof b; C(getpeername(fd, (void *)&b, &l)); out("%d %s %d", b.sin_family, inet_ntoa(b.sin_addr), (int)l);
    if (!server) { T(b.sin_port == ((struct sockaddr_in *)&peer_addr)->sin_port); tell(ntohs(a.sin_port)); } else { T(ntohs(b.sin_port) == hear()); T(ntohs(a.sin_port) == port_of(listener)); }
    l = 4; memset(&a, 0x33, sizeof a); C(getpeername(fd, (void *)&a, &l)); out("%d, %x", (int)l, ((unsigned char *)&a)[8]); l = 0; C(getpeername(fd, NULL, &l)); out("%d", (int)l); l = -1; C(getpeername(fd, (void *)&a, &l)); l = 64; C(getpeername(fd, (void *)big, &l)); out("%d", (int)l); C(getpeername(fd, (void *)-1, &l)); C(getpeername(fd, (void *)&a, (void *)-1));
    if (server) { l = sizeof a; C(getpeername(listener, (void *)&a, &l)); }
    C(getpeername(0, (void *)&a, &l)); C(getsockname(0, (void *)&a, &l)); C(getsockname(-1, (void *)&a, &l));
}
CASE(file_properties) {
    struct stat st;
    char link[64] = "", path[64];
    C(fstat(fd, &st)); out("%o size %ld links %d", st.st_mode, (long)st.st_size, (int)st.st_nlink);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd); long n = readlink(path, link, 63); out("%.8s", link);
    C(open(path, O_RDWR)); C(fcntl(fd, F_GETFL)); C(fcntl(fd, F_GETFD)); C(fchmod(fd, 0600));
}
CASE(attached_filter) {
    /* A filter that accepts all: packets go on flowing. */
    struct { unsigned short code; unsigned char jt, jf; unsigned k; } accept_all[] = {{6, 0, 0, 0xffffffff}};
    struct { unsigned short len; void *f; } prog = {1, accept_all};
    if (server) { C(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog)); }
    step();
    put(fd, 3000, 1); get(fd, 3000, 1);
    step();
    if (server) { C(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, NULL, 0)); C(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &prog, 4)); C(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &prog, 4)); }
    step();
    put(fd, 3000, 1); get(fd, 3000, 1);
}
CASE(options_in_the_middle_of_a_stream) {
    /* Each option set while data lies there changes nothing about the data. */
    static const struct { int level, name, value; } o[] = {{SOL_TCP, TCP_NODELAY, 1}, {SOL_SOCKET, SO_RCVBUF, 50000}, {SOL_SOCKET, SO_SNDBUF, 50000}, {SOL_SOCKET, SO_TIMESTAMP, 1}, {SOL_TCP, TCP_INQ, 1}, {SOL_SOCKET, SO_PEEK_OFF, 0}, {SOL_SOCKET, SO_PEEK_OFF, -1}, {SOL_SOCKET, SO_ZEROCOPY, 1}, {SOL_SOCKET, SO_OOBINLINE, 1}, {SOL_TCP, TCP_CORK, 0}, {SOL_SOCKET, SO_KEEPALIVE, 1}, {SOL_SOCKET, SO_TIMESTAMPING, 0x58}, {SOL_SOCKET, SO_BUSY_POLL, 1}, {SOL_SOCKET, SO_MAX_PACING_RATE, 1 << 30}, {SOL_TCP, TCP_USER_TIMEOUT, 1000}, {SOL_TCP, TCP_QUICKACK, 0}};
    for (size_t i = 0; i < sizeof o / sizeof *o; i++) {
        if (server) { put(fd, 500, i); step(); C(set_int(fd, o[i].level, o[i].name, o[i].value)); put(fd, 500, i + 100); step(); get(fd, 300, i); step(); }
        else { step(); need(fd, 500); C(set_int(fd, o[i].level, o[i].name, o[i].value)); step(); get(fd, 500, i); get(fd, 500, i + 100); put(fd, 300, i); step(); }
    }
}
CASE(async_signals) {
    /* O_ASYNC: SIGIO for each arrival. */
    handle(SIGIO, SA_RESTART);
    if (!server) { C(fcntl(fd, F_SETOWN, getpid())); T(fcntl(fd, F_GETOWN) == getpid()); C(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC)); T(fcntl(fd, F_GETFL) & O_ASYNC); }
    step();
    for (int i = 0; i < 5; i++) {
        int before = ios;
        step();
        if (server) Q(send(fd, "abc", 3, 0));
        step();
        if (!server) { wait_in(fd); for (int k = 0; k < 1000 && ios == before; k++) nap_ms(1); T(ios > before); C(recv(fd, buf, 10, 0)); }
        step();
    }
    if (!server) { C(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_ASYNC)); ios = 0; }
    step();
    if (server) Q(send(fd, "abc", 3, 0));
    step();
    if (!server) { wait_in(fd); C(ios); C(fcntl(fd, F_GETSIG)); C(recv(fd, buf, 10, 0)); }
    step();
}
static volatile int rt_fd, rt_band, rt_count;
static void on_rt(int s, siginfo_t *i, void *c) { rt_fd = i->si_fd; rt_band |= i->si_band; rt_count++; }
CASE(realtime_signal_with_the_fd) {
    struct sigaction sa = {.sa_sigaction = on_rt, .sa_flags = SA_SIGINFO | SA_RESTART};
    Q(sigaction(SIGRTMIN, &sa, NULL));
    if (!server) { C(fcntl(fd, F_SETSIG, SIGRTMIN)); Q(fcntl(fd, F_SETOWN, getpid())); Q(fcntl(fd, F_SETFL, O_RDWR | O_ASYNC)); }
    step();
    if (server) Q(send(fd, "abc", 3, 0));
    step();
    if (!server) { wait_in(fd); for (int k = 0; k < 1000 && !rt_count; k++) nap_ms(1); T(rt_fd == fd); T(rt_band & POLLIN); C(recv(fd, buf, 10, 0)); }
    step();
}
CASE(send_timeouts_and_options_kept) {
    struct timeval tv = {3, 500000}, got;
    socklen_t l = sizeof got;
    C(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv)); step(); put(fd, 1000, 1); get(fd, 1000, 1);
    C(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &got, &l)); out("%ld.%06ld", (long)got.tv_sec, (long)got.tv_usec); C(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got, &l)); out("%ld.%06ld", (long)got.tv_sec, (long)got.tv_usec);
}
