/* Connections that are timed from inside: bytes one way, round trips, connections one after another, many at once.
 *
 * Neighbours: benches/speed/doors.rs runs it in a cell, bare and behind others' ways out, and is who it speaks with. Never: counts
 * its own start, or how long the other side takes to be there.
 *
 *     doors bytes|trips|connections|crowd ADDRESS PORT NUMBER
 *
 * Prints how many nanoseconds NUMBER bytes, round trips or connections took. A crowd stays until a line is read, and says first that it is there.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int main(int argc, char **argv)
{
	static char word[32], buffer[1 << 20];
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
