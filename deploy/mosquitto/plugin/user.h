/*
 * One user as the service describes it: its ways to log in, its allowed client ids and its rules.
 */
#ifndef AUTHSVC_USER_H
#define AUTHSVC_USER_H

#include "rules.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* A valid way to be this user: a password (`p:...`), an API token (`t:...`) or a certificate (`c:...`). */
struct credential {
	char *id;
	time_t until; /* not valid at this time or later; 0 for no end */
};

struct strings {
	char **items;
	size_t count;
};

struct user {
	char *username;
	uint64_t version;    /* the policy version that this is a part of */
	enum reason refused; /* why everything is denied; REASON_PERMISSION if it is not */
	struct credential *credentials;
	size_t credential_count;
	struct strings client_ids; /* patterns, as client_id_allowed takes them */
	struct strings roles;
	struct ruleset *rules;
};

/*
 * Returns a new user, which `user_free` frees. NULL if a member is missing or malformed, if there are more than
 * 100,000 rules or other entries, if a text is longer than 65,535 bytes, or if there is no memory.
 */
struct user *user_parse(const cJSON *json);

void user_free(struct user *user);

/* Returns whether this credential belongs to the user and is valid at this time. */
bool user_has_credential(const struct user *user, const char *id, time_t now);

/* Returns when the next of the valid credentials ends; 0 if none does. */
time_t user_next_expiry(const struct user *user, time_t now);

/*
 * Returns the decision on one access of this user: REASON_PERMISSION or the reason of the denial. The arguments are
 * those of `ruleset_decide`. It does not check whether a client that logged in with a certificate still has a valid one.
 */
enum reason user_decide(const struct user *user, const char *client_id, int access, const char *topic);

#endif
