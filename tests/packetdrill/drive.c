// Drives libaccel_packetdrill.so as packetdrill does: by dlopen and the C interface alone. A connection is opened and carries
// text; accept, read and write wait in a thread of their own, and end at their own virtual times.
//
//   drive path/to/libaccel_packetdrill.so
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

struct interface {
  void *ud;
  void (*free)(void *);
  int (*socket)(void *, int, int, int);
  int (*bind)(void *, int, const struct sockaddr *, socklen_t);
  int (*listen)(void *, int, int);
  int (*accept)(void *, int, struct sockaddr *, socklen_t *);
  int (*connect)(void *, int, const struct sockaddr *, socklen_t);
  ssize_t (*read)(void *, int, void *, size_t);
  ssize_t (*readv)(void *, int, const struct iovec *, int);
  ssize_t (*recv)(void *, int, void *, size_t, int);
  ssize_t (*recvfrom)(void *, int, void *, size_t, int, struct sockaddr *, socklen_t *);
  ssize_t (*recvmsg)(void *, int, struct msghdr *, int);
  ssize_t (*write)(void *, int, const void *, size_t);
  ssize_t (*writev)(void *, int, const struct iovec *, int);
  ssize_t (*send)(void *, int, const void *, size_t, int);
  ssize_t (*sendto)(void *, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
  ssize_t (*sendmsg)(void *, int, const struct msghdr *, int);
  int (*fcntl)(void *, int, int, ...);
  int (*ioctl)(void *, int, unsigned long, ...);
  int (*close)(void *, int);
  int (*shutdown)(void *, int, int);
  int (*getsockopt)(void *, int, int, int, void *, socklen_t *);
  int (*setsockopt)(void *, int, int, int, const void *, socklen_t);
  int (*poll)(void *, struct pollfd *, nfds_t, int);
  int (*netdev_send)(void *, const void *, size_t);
  int (*netdev_receive)(void *, void *, size_t *, long long *);
  int (*usleep)(void *, useconds_t);
  int (*gettimeofday)(void *, struct timeval *, struct timezone *);
  int (*epoll_create)(void *, int);
  int (*epoll_ctl)(void *, int, int, int, struct epoll_event *);
  int (*epoll_wait)(void *, int, struct epoll_event *, int, int);
  int (*pipe)(void *, int[2]);
  ssize_t (*splice)(void *, int, long long *, int, long long *, size_t, unsigned);
};

static struct interface s;

#define CHECK(what)                                                       \
  do {                                                                    \
    if (!(what)) {                                                        \
      fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); \
      exit(1);                                                            \
    }                                                                     \
  } while (0)

static long long now(void) {
  struct timeval time;
  CHECK(s.gettimeofday(s.ud, &time, NULL) == 0);
  return time.tv_sec * 1000000LL + time.tv_usec;
}

struct packet {
  struct iphdr ip;
  struct tcphdr tcp;
  char rest[1460];
} __attribute__((packed));

static uint16_t sum(const void *bytes, size_t len, uint32_t begin) {
  const uint8_t *at = bytes;
  for (size_t i = 0; i < len; i++) begin += i % 2 ? at[i] : (uint32_t)at[i] << 8;
  while (begin >> 16) begin = (begin & 0xffff) + (begin >> 16);
  return htons((uint16_t)~begin);
}

// A segment from the peer, 192.0.2.1 port 40000, to 192.168.0.1 port 8080.
static void give(uint32_t seq, uint32_t ack, int syn, const char *text) {
  struct packet p;
  size_t len = strlen(text), tcp = sizeof p.tcp + len;
  memset(&p, 0, sizeof p);
  p.ip.version = 4, p.ip.ihl = 5, p.ip.ttl = 64, p.ip.protocol = IPPROTO_TCP;
  p.ip.tot_len = htons(sizeof p.ip + tcp);
  p.ip.saddr = inet_addr("192.0.2.1"), p.ip.daddr = inet_addr("192.168.0.1");
  p.ip.check = sum(&p.ip, sizeof p.ip, 0);
  p.tcp.source = htons(40000), p.tcp.dest = htons(8080), p.tcp.seq = htonl(seq), p.tcp.ack_seq = htonl(ack);
  p.tcp.doff = 5, p.tcp.syn = syn, p.tcp.ack = !syn, p.tcp.window = htons(60000);
  memcpy(p.rest, text, len);
  uint32_t pseudo = IPPROTO_TCP + tcp;
  const uint8_t *addresses = (const uint8_t *)&p.ip.saddr;
  for (int i = 0; i < 8; i += 2) pseudo += (uint32_t)addresses[i] << 8 | addresses[i + 1];
  p.tcp.check = sum(&p.tcp, tcp, pseudo);
  CHECK(s.netdev_send(s.ud, &p, sizeof p.ip + tcp) == 0);
}

// The next segment of the stack's; its time goes to *at.
static struct packet take(long long *at) {
  struct packet p;
  size_t len = sizeof p;
  memset(&p, 0, sizeof p);
  CHECK(s.netdev_receive(s.ud, &p, &len, at) == 0 && len >= sizeof p.ip + sizeof p.tcp);
  return p;
}

struct late {
  int fd, result;
  _Atomic int thread;
  long long at;
};

static void *late_accept(void *argument) {
  struct late *late = argument;
  late->thread = gettid();
  late->result = s.accept(s.ud, late->fd, NULL, NULL);
  late->at = now();
  return NULL;
}

static void *late_read(void *argument) {
  struct late *late = argument;
  char buffer[100];
  late->thread = gettid();
  late->result = s.read(s.ud, late->fd, buffer, sizeof buffer);
  late->at = now();
  return NULL;
}

// Whether a thread sleeps: how packetdrill, too, finds out that a call waits.
static int sleeps(int thread) {
  char path[64], stat[256] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t len = fread(stat, 1, sizeof stat - 1, file);
  fclose(file);
  stat[len] = 0;
  char *state = strrchr(stat, ')');
  return state && state[2] == 'S';
}

// Begins a call in a thread, and lets it come to where it waits.
static pthread_t begin(void *(*call)(void *), struct late *late) {
  pthread_t thread;
  late->thread = 0;
  CHECK(pthread_create(&thread, NULL, call, late) == 0);
  while (!late->thread || !sleeps(late->thread)) sched_yield();
  return thread;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
  void (*init)(const char *, struct interface *) = dlsym(library, "packetdrill_interface_init");
  CHECK(init);
  init("", &s);
  long long start = now(), at;

  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
  int listener = s.socket(s.ud, AF_INET, SOCK_STREAM, IPPROTO_TCP), on = 1;
  CHECK(listener == 3);
  CHECK(s.socket(s.ud, AF_UNIX, SOCK_STREAM, 0) == -1 && errno == EAFNOSUPPORT);
  CHECK(s.setsockopt(s.ud, listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
  CHECK(s.bind(s.ud, listener, (struct sockaddr *)&address, sizeof address) == 0);
  CHECK(s.listen(s.ud, listener, 1) == 0);

  // accept(2) waits while packets come and go and time passes.
  struct late late = {.fd = listener};
  pthread_t thread = begin(late_accept, &late);
  give(1000, 0, 1, "");
  struct packet reply = take(&at);
  CHECK(reply.tcp.syn && reply.tcp.ack && ntohl(reply.tcp.ack_seq) == 1001 && at == start);
  uint32_t ours = ntohl(reply.tcp.seq) + 1;
  CHECK(s.usleep(s.ud, 100000) == 0 && now() == start + 100000);
  give(1001, ours, 0, "");
  CHECK(s.usleep(s.ud, 1000) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(late.result == 4 && late.at == start + 100000);

  // The same for read(2); the clock is where the text came, not where it is later.
  struct late text = {.fd = late.result};
  thread = begin(late_read, &text);
  while (now() < start + 500000) s.usleep(s.ud, start + 500000 - now());
  give(1001, ours, 0, "eleven bytes" + 1);
  reply = take(&at);
  CHECK(ntohl(reply.tcp.ack_seq) == 1012 && at == start + 500000);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(text.result == 11 && text.at == start + 500000);

  // What is written leaves, and is sent again when nothing acknowledges it: the clock goes to the timeout by itself.
  CHECK(s.write(s.ud, text.fd, "hello", 5) == 5);
  reply = take(&at);
  CHECK(ntohl(reply.tcp.seq) == ours && reply.tcp.psh && at == start + 500000);
  reply = take(&at);
  CHECK(ntohl(reply.tcp.seq) == ours && at > start + 600000 && now() == at);
  give(1012, ours + 5, 0, "");

  struct pollfd poll = {.fd = text.fd, .events = POLLIN | POLLOUT};
  CHECK(s.poll(s.ud, &poll, 1, 0) == 1 && poll.revents == POLLOUT);
  char byte;
  CHECK(s.recv(s.ud, text.fd, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
  CHECK(s.close(s.ud, 77) == -1 && errno == EBADF);
  CHECK(s.close(s.ud, text.fd) == 0);
  reply = take(&at);
  CHECK(reply.tcp.fin && ntohl(reply.tcp.seq) == ours + 5);
  CHECK(s.close(s.ud, listener) == 0);
  s.free(s.ud);
  puts("done");
  return 0;
}
