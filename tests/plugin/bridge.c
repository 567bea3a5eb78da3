/*
 * What the tests of rules.c and user.c need beyond those two files: a user from JSON text, the memory that a user
 * takes, and the number of functions called while a library built with -finstrument-functions decides.
 */
#include "user.h"

#include <malloc.h>

static size_t calls;

void __cyg_profile_func_enter(void *function, void *caller);
void __cyg_profile_func_exit(void *function, void *caller);

void __cyg_profile_func_enter(void *function, void *caller)
{
	(void)function;
	(void)caller;
	calls++;
}

void __cyg_profile_func_exit(void *function, void *caller)
{
	(void)function;
	(void)caller;
}

/* Returns the number of functions called since the last time. */
size_t bridge_calls(void)
{
	size_t since = calls;

	calls = 0;
	return since;
}

/* Returns a user, NULL if the text is no JSON or no user. */
struct user *bridge_user(const char *text, size_t length)
{
	cJSON *json = cJSON_ParseWithLengthOpts(text, length, NULL, 0);
	struct user *user = json ? user_parse(json) : NULL;

	cJSON_Delete(json);
	return user;
}

/* Returns the bytes that one such user takes from malloc, its overhead included: the average of many. */
size_t bridge_user_bytes(const char *text, size_t length)
{
	enum { USERS = 200 };
	struct user *users[USERS];
	cJSON *json = cJSON_ParseWithLengthOpts(text, length, NULL, 0);
	size_t before = mallinfo2().uordblks;

	for (int i = 0; i < USERS; i++)
		users[i] = user_parse(json);
	size_t bytes = (mallinfo2().uordblks - before) / USERS;
	for (int i = 0; i < USERS; i++)
		user_free(users[i]);
	cJSON_Delete(json);
	return bytes;
}
