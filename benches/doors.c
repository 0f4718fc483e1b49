/* Connections that are timed from inside: bytes one way, round trips, connections one after another, many at once.
 *
 * Neighbours: benches/speed/doors.rs runs it in a cell, bare and behind others' ways out, and is who it speaks with. Never: counts
 * its own start, or how long the other side takes to be there.
 *
 *     doors bytes|trips|connections|crowd ADDRESS PORT NUMBER
 *     doors pass PORT PORT
 *
 * Prints how many nanoseconds NUMBER bytes, round trips or connections took. A crowd stays until a line is read, and says first that it is there.
 * `pass` leads from one port of the loopback to another, as any program between two others must, and does nothing else.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in at = { .sin_family = AF_INET };

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* One round trip. */
static int trip(int s)
{
	char byte = 'x';
	return write(s, &byte, 1) == 1 && read(s, &byte, 1) == 1 && byte == 'x' ? 0 : -1;
}

/* A connection on which `word`, which has the length of a line, was said. */
static int open_one(const char *word)
{
	int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
	if (s < 0 || connect(s, (struct sockaddr *)&at, sizeof at) != 0)
		goto wrong;
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (write(s, word, 32) == 32 && trip(s) == 0)
		return s;
wrong:
	if (s >= 0)
		close(s);
	return -1;
}

/* Waits until something of `events` is there at `s`. */
static void wait_for(int s, short events)
{
	struct pollfd one = { s, events, 0 };
	poll(&one, 1, -1);
}

/* All that is there at `from`: copied, or when there is much of it moved by the kernel. False when it ended. */
static int pass_on(int from, int to, int p[2])
{
	static char buffer[1 << 16];
	ssize_t count = read(from, buffer, sizeof buffer), done;
	if (count < 0)
		return errno == EAGAIN;
	for (ssize_t at = 0; at < count; at += done)
		if ((done = write(to, buffer + at, count - at)) < 0) {
			if (errno != EAGAIN)
				return 0;
			wait_for(to, POLLOUT), done = 0;
		}
	if (count < (ssize_t)sizeof buffer)
		return count > 0;
	while ((count = splice(from, NULL, p[1], NULL, 1 << 20, SPLICE_F_NONBLOCK)) > 0)
		while (count > 0)
			if ((done = splice(p[0], NULL, to, NULL, count, SPLICE_F_NONBLOCK)) >= 0)
				count -= done;
			else if (errno == EAGAIN)
				wait_for(to, POLLOUT);
			else
				return 0;
	return count < 0 && errno == EAGAIN;
}

/* From one port to another, until this is killed. */
static int pass(int from, int to)
{
	static int other[1 << 16];
	struct epoll_event event = { .events = EPOLLIN }, found[64];
	int p[2], on = 1, poller = epoll_create1(0), door = socket(AF_INET, SOCK_STREAM, 0);
	inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
	at.sin_port = htons(from);
	if (pipe(p) != 0 || bind(door, (struct sockaddr *)&at, sizeof at) != 0 || listen(door, 128) != 0)
		return 1;
	event.data.fd = door;
	epoll_ctl(poller, EPOLL_CTL_ADD, door, &event);
	at.sin_port = htons(to);
	for (;;) {
		int count = epoll_wait(poller, found, 64, -1);
		for (int i = 0; i < count; i++) {
			int s = found[i].data.fd;
			if (s == door) {
				int one = accept(door, NULL, NULL), two = socket(AF_INET, SOCK_STREAM, 0);
				if (one < 0 || two < 0 || connect(two, (struct sockaddr *)&at, sizeof at) != 0)
					return 1;
				other[one] = two, other[two] = one;
				for (int end = one;; end = two) {
					setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
					fcntl(end, F_SETFL, O_NONBLOCK);
					event.data.fd = end;
					epoll_ctl(poller, EPOLL_CTL_ADD, end, &event);
					if (end == two)
						break;
				}
			} else if (other[s] && !pass_on(s, other[s], p)) {
				close(other[s]);
				close(s);
				other[other[s]] = 0, other[s] = 0;
			}
		}
	}
}

int main(int argc, char **argv)
{
	static char word[32], buffer[1 << 20];
	if (argc == 4 && strcmp(argv[1], "pass") == 0)
		return pass(atoi(argv[2]), atoi(argv[3]));
	if (argc != 5)
		return 2;
	const char *what = argv[1];
	at.sin_port = htons(atoi(argv[3]));
	if (inet_pton(AF_INET, argv[2], &at.sin_addr) != 1)
		return 2;
	long long number = atoll(argv[4]);
	snprintf(word, sizeof word, "%s %lld", strcmp(what, "bytes") == 0 ? "send" : "echo", number);
	int s = -1;
	/* Who leads there may still be starting. */
	for (int tried = 0; s < 0 && tried < 500; tried++)
		if ((s = open_one(word)) < 0)
			usleep(10000);
	if (s < 0)
		return 1;
	if (strcmp(what, "crowd") == 0) {
		for (long long done = 1; done < number; done++)
			if (open_one(word) < 0)
				return 1;
		puts("there");
		fflush(stdout);
		return getchar() == EOF;
	}
	long long start = now(), left = number;
	if (strcmp(what, "bytes") == 0) {
		if (write(s, word, 1) != 1)
			return 1;
		while (left > 0) {
			ssize_t count = read(s, buffer, sizeof buffer);
			if (count <= 0)
				return 1;
			left -= count;
		}
	} else {
		for (; left > 0; left--) {
			if (strcmp(what, "connections") == 0) {
				close(s);
				if ((s = open_one(word)) < 0)
					return 1;
			} else if (trip(s) != 0) {
				return 1;
			}
		}
	}
	printf("%lld\n", now() - start);
	return 0;
}
