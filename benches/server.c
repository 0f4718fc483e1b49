/* The smallest MCP server: answers as fast as one can, so that what is measured is what stands in front of it.
 *
 * Neighbours: benches/speed/relay.rs talks to it, bare and through `toolcell run`. Tools: `small` answers with one
 * word, `large` with 64 MiB of text, `many` says 10,000 times how far it is, in 1 KiB each, and answers then.
 * Never: checks what it is asked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGE (64u << 20)
#define MANY 10000u
#define SMALL 1024

int main(void)
{
	static char chunk[1 << 16];
	char *line = NULL;
	size_t size = 0;
	memset(chunk, 'x', sizeof chunk);
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	while (getline(&line, &size, stdin) > 0) {
		/* A number, or a text without anything that would need a parser. */
		char *id = strstr(line, "\"id\":"), own[64] = "";
		if (!id || sscanf(id + 5, " %63[^,}]", own) != 1)
			continue;
		if (strstr(line, "\"many\"")) {
			char *token = strstr(line, "\"progressToken\":"), told[64] = "0";
			if (token)
				sscanf(token + 16, " %63[^,}]", told);
			for (unsigned done = 1; done <= MANY; done++) {
				printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":"
				       "{\"progressToken\":%s,\"progress\":%u,\"message\":\"%.*s\"}}\n",
				       told, done, SMALL, chunk);
				fflush(stdout);
			}
		}
		printf("{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":", own);
		if (strstr(line, "\"initialize\"")) {
			fputs("{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{}},"
			      "\"serverInfo\":{\"name\":\"bench\",\"version\":\"1\"}}}\n", stdout);
		} else if (strstr(line, "\"tools/list\"")) {
			fputs("{\"tools\":[{\"name\":\"small\",\"inputSchema\":{\"type\":\"object\"}},"
			      "{\"name\":\"many\",\"inputSchema\":{\"type\":\"object\"}},"
			      "{\"name\":\"large\",\"inputSchema\":{\"type\":\"object\"}}]}}\n", stdout);
		} else if (strstr(line, "\"large\"")) {
			fputs("{\"content\":[{\"type\":\"text\",\"text\":\"", stdout);
			for (unsigned done = 0; done < LARGE; done += sizeof chunk)
				fwrite(chunk, 1, sizeof chunk, stdout);
			fputs("\"}]}}\n", stdout);
		} else {
			fputs("{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n", stdout);
		}
		fflush(stdout);
	}
	free(line);
	return 0;
}
