/*
 * Feeds mutated JSON to user_parse and asks each user that it returns a few questions.
 *
 *     fuzz_user COUNT SEED
 *
 * Built with -fsanitize=address,undefined, so an error ends it. It prints how many inputs were JSON, how many of them
 * a user, and how many questions were allowed, so that the caller sees that the inputs reach the code.
 */
#include "user.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INPUT 2048

static const char *const seeds[] = {
	"{\"username\":\"bob\",\"version\":123,\"refused\":null,\"credentials\":{\"p:9c1f\":null,\"t:77ab\":1767225600,"
	"\"c:1A2B\":1767225601},\"clientIds\":[\"%u\",\"%u-*\",\"*\"],\"rules\":[\"readWrite devices/%u/#\",\"deny read x/#\","
	"\"read $SYS/+/uptime\",\"write #\"],\"roles\":[\"plant\"]}",
	"{\"username\":\"a/+\",\"version\":0,\"refused\":\"user-disabled\",\"credentials\":{},\"clientIds\":[],\"rules\":[],"
	"\"roles\":[]}",
	"{\"username\":\"\",\"version\":1e3,\"refused\":null,\"credentials\":{},\"clientIds\":[],\"rules\":[\"read #\","
	"\"deny readWrite a/%c/b\",\"deny read +/+/#\",\"read /\",\"write a//b\"],\"roles\":[]}",
	"{\"roles\":[\"a\",\"b\"],\"rules\":[\"read \\u00e9/\\ud83d\\ude00\",\"deny write \\u0024x/%u\"],\"clientIds\":"
	"[\"a*%u*b\",\"**\",\"%u%u*%u\"],\"credentials\":{\"\":1},\"refused\":null,\"version\":9007199254740991,"
	"\"username\":\"ab\"}",
};

static const char *const tokens[] = {"null", "true", "-1", "1e999", "0.5", "\"\"", "[]", "{}", "\"read a\"", "\"bob\"", ",", ":",
	"[", "]", "{", "}", "\"", "\\u0000", "\\ud800", "\\", "%u", "%c", "*", "+", "#", "/", "/+", "/#", "$", "$share/g/",
	"deny ", "read ", "write ", "readWrite ", "\xff", "\xc3\xa9", "////////////////////////////////////////"};

static const char *const topics[] = {"devices/bob/state", "x/y", "$SYS/broker/uptime", "#", "+/+/#", "$share/g/#", "$share/g/a/+/b",
	"a/b/b", "/", "", "a+", "\xff", "$share/", "devices/+/#"};

static const char *const client_ids[] = {"bob", "bob-1", "", "ab", "axabxb", "b"};

static uint64_t state;

/* Returns a number below `limit`, from xorshift64. */
static size_t below(size_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % limit;
}

#define PICK(array) ((array)[below(sizeof(array) / sizeof(*(array)))])

/* Replaces `removed` bytes at `at` by others, unless the result would be too long. */
static void splice(char *input, size_t *length, size_t at, size_t removed, const char *added, size_t size)
{
	if (*length - removed + size > MAX_INPUT)
		return;
	memmove(input + at + size, input + at + removed, *length - at - removed);
	memcpy(input + at, added, size);
	*length += size - removed;
}

static void mutate(char *input, size_t *length)
{
	size_t at = below(*length + 1), rest = *length - at;
	size_t removed = below((rest < 12 ? rest : 12) + 1);
	char copy[64], byte = (char)below(256);
	const char *token = PICK(tokens);

	switch (below(6)) {
	case 0:
		splice(input, length, at, rest > 0, &byte, 1);
		break;
	case 1:
		splice(input, length, at, removed, "", 0);
		break;
	case 2: /* repeat what follows */
		removed = rest < sizeof(copy) ? rest : sizeof(copy);
		memcpy(copy, input + at, removed);
		splice(input, length, at, 0, copy, removed);
		break;
	case 3:
		splice(input, length, at, removed, token, strlen(token));
		break;
	default:
		splice(input, length, at, 0, token, strlen(token));
	}
}

/* Asks every question about a user. Returns how many were allowed. */
static size_t ask(const struct user *user)
{
	static const int accesses[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_SUBSCRIBE};
	size_t allowed = 0;

	for (int i = 0; i < 6; i++)
		allowed += user_decide(user, PICK(client_ids), PICK(accesses), PICK(topics)) == REASON_PERMISSION;
	user_has_credential(user, "t:77ab", 1767225600);
	user_next_expiry(user, 1767225600);
	return allowed;
}

int main(int argc, char **argv)
{
	size_t documents = 0, users = 0, allowed = 0;

	if (argc != 3)
		return 2;
	state = strtoull(argv[2], NULL, 10) * 2 + 1; /* never 0 */
	for (unsigned long long left = strtoull(argv[1], NULL, 10); left; left--) {
		const char *seed = PICK(seeds);
		size_t length = strlen(seed);
		char input[MAX_INPUT];

		memcpy(input, seed, length);
		for (size_t mutations = below(5); mutations; mutations--)
			mutate(input, &length);
		char *exact = malloc(length ? length : 1); /* so that reading beyond the end is an error */
		memcpy(exact, input, length);
		cJSON *json = cJSON_ParseWithLengthOpts(exact, length, NULL, 0);
		struct user *user = json ? user_parse(json) : NULL;
		cJSON_Delete(json);
		free(exact);
		documents += json != NULL;
		users += user != NULL;
		allowed += user ? ask(user) : 0;
		user_free(user);
	}
	printf("%zu %zu %zu\n", documents, users, allowed);
	return 0;
}
