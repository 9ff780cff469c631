/* The floor under every StatsD collector: what the kernel alone costs, and a sender that is not the bottleneck.
 *
 *   udp recv PORT NAP_US                 counts datagrams and newlines with recvmmsg until SIGTERM, prints both
 *   udp send PORT LINES DATAGRAMS RATE   DATAGRAMS packets of LINES lines each, RATE packets a second, prints the lines
 *   udp join PORT DATAGRAMS RATE         DATAGRAMS packets of one line of 64 bytes, 60 of them handed over with one call
 *                                        (UDP_SEGMENT), RATE packets a second, prints the lines
 *
 * The receiver does the least that a collector must do: read in batches of 64, touch every byte once (memchr for the
 * line ends). With NAP_US 0 it is woken for every few datagrams; else it sleeps that long after a batch that was not
 * full, which costs latency and saves most of the wake-ups. The sender paces itself by the clock in bursts of 32, so that all rivals see the same traffic.
 * Lines are of 90 series: 30 counters, 30 gauges and 30 timers, without tags, because not every rival knows tags.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RECEIVE_BATCH = 64, SEND_BATCH = 32, DATAGRAM_BYTES_MAX = 8192, SERIES = 90 };
enum { JOINED = 60, JOINED_BYTES = 64 };

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int udp_socket(int port, int listening)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int descriptor = socket(AF_INET, SOCK_DGRAM, 0);
    int bytes = 8 << 20;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (descriptor < 0)
        fail("socket");
    if (!listening) {
        if (connect(descriptor, (struct sockaddr *)&address, sizeof address))
            fail("connect");
        return descriptor;
    }
    if (setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes))
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    if (bind(descriptor, (struct sockaddr *)&address, sizeof address))
        fail("bind");
    return descriptor;
}

static void receive(int port, long nap_us)
{
    static char buffers[RECEIVE_BATCH][DATAGRAM_BYTES_MAX];
    struct iovec vectors[RECEIVE_BATCH];
    struct mmsghdr messages[RECEIVE_BATCH];
    unsigned long datagrams = 0, lines = 0;
    struct sigaction action = {.sa_handler = stop};
    int descriptor = udp_socket(port, 1);

    sigaction(SIGTERM, &action, NULL);
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < RECEIVE_BATCH; i++) {
        vectors[i] = (struct iovec){buffers[i], DATAGRAM_BYTES_MAX};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    while (!stopped) {
        int count = recvmmsg(descriptor, messages, RECEIVE_BATCH, MSG_WAITFORONE, NULL);
        if (count < 0 && errno != EINTR)
            fail("recvmmsg");
        if (nap_us && count < RECEIVE_BATCH) {
            struct timespec nap = {0, nap_us * 1000};
            nanosleep(&nap, NULL);
        }
        for (int i = 0; i < count; i++) {
            char *at = buffers[i], *end = at + messages[i].msg_len;
            datagrams++;
            while ((at = memchr(at, '\n', end - at)) != NULL) {
                lines++;
                at++;
            }
        }
    }
    printf("%lu %lu\n", datagrams, lines);
}

/* One datagram: `lines` lines, each of the next series. A series is always of the same kind. */
static size_t fill(char *buffer, int lines, unsigned long *next)
{
    static const char *const kinds[] = {"c", "g", "ms"};
    size_t used = 0;
    for (int i = 0; i < lines; i++, ++*next)
        used += sprintf(buffer + used, "bench.series%02lu:%lu|%s\n", *next % SERIES,
                        1 + *next % 7, kinds[*next % 3]);
    return used;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

/* Sleeps until it is time for the next packets. */
static void pace(double started, unsigned long sent, double rate)
{
    double ahead = started + sent / rate - seconds();
    if (ahead > 0) {
        struct timespec pause = {(time_t)ahead, (long)((ahead - (time_t)ahead) * 1e9)};
        nanosleep(&pause, NULL);
    }
}

static void transmit_joined(int port, unsigned long datagrams, double rate)
{
    static char buffer[JOINED * JOINED_BYTES + 1];
    int descriptor = udp_socket(port, 0), bytes = JOINED_BYTES;
    unsigned long sent = 0;
    double started;

    if (setsockopt(descriptor, SOL_UDP, UDP_SEGMENT, &bytes, sizeof bytes))
        fail("UDP_SEGMENT");
    for (int i = 0; i < JOINED; i++)
        sprintf(buffer + i * JOINED_BYTES, "bench.sixty_datagrams_joined_by_the_kernel_into_one.%07d:%d|c\n",
                i, 1 + i % 7);
    started = seconds();
    for (; sent < datagrams; sent += JOINED) {
        pace(started, sent, rate);
        if (send(descriptor, buffer, JOINED * JOINED_BYTES, 0) < 0)
            fail("send");
    }
    printf("%lu\n", sent);
}

static void transmit(int port, int lines, unsigned long datagrams, double rate)
{
    static char buffers[SERIES][DATAGRAM_BYTES_MAX];
    size_t lengths[SERIES];
    struct iovec vectors[SEND_BATCH];
    struct mmsghdr messages[SEND_BATCH];
    unsigned long next = 0, sent = 0;
    int descriptor = udp_socket(port, 0);
    double started;

    for (int i = 0; i < SERIES; i++)
        lengths[i] = fill(buffers[i], lines, &next);
    memset(messages, 0, sizeof messages);
    started = seconds();
    while (sent < datagrams) {
        unsigned long batch = datagrams - sent < SEND_BATCH ? datagrams - sent : SEND_BATCH;
        pace(started, sent, rate);
        for (unsigned long i = 0; i < batch; i++) {
            unsigned long chosen = (sent + i) % SERIES;
            vectors[i] = (struct iovec){buffers[chosen], lengths[chosen]};
            messages[i].msg_hdr.msg_iov = &vectors[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        for (unsigned long done = 0; done < batch;) {
            int count = sendmmsg(descriptor, messages + done, batch - done, 0);
            if (count < 0)
                fail("sendmmsg");
            done += count;
        }
        sent += batch;
    }
    printf("%lu\n", sent * lines);
}

int main(int count, char **arguments)
{
    if (count == 4 && strcmp(arguments[1], "recv") == 0) {
        receive(atoi(arguments[2]), strtol(arguments[3], NULL, 10));
    } else if (count == 6 && strcmp(arguments[1], "send") == 0) {
        int lines = atoi(arguments[3]);
        if (lines < 1 || lines > DATAGRAM_BYTES_MAX / 32)
            return 64;
        transmit(atoi(arguments[2]), lines, strtoul(arguments[4], NULL, 10), atof(arguments[5]));
    } else if (count == 5 && strcmp(arguments[1], "join") == 0) {
        transmit_joined(atoi(arguments[2]), strtoul(arguments[3], NULL, 10), atof(arguments[4]));
    } else {
        fprintf(stderr, "usage: udp recv PORT NAP_US | udp send PORT LINES DATAGRAMS RATE | udp join PORT DATAGRAMS RATE\n");
        return 64;
    }
    return 0;
}
