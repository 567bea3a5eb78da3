/*
 * Rule sets: may a client read, write or subscribe to a topic. And allowed client ids.
 *
 * Every answer equals that of authsvc/policy (access.decide_access, allowed_client_ids.allows), which
 * defines the meaning of a rule; tests/plugin compares the two. All text is UTF-8 and ends with a NUL.
 */
#ifndef AUTHSVC_RULES_H
#define AUTHSVC_RULES_H

#include <stdbool.h>
#include <stddef.h>

/* What a client asks for: MOSQ_ACL_READ, MOSQ_ACL_WRITE and MOSQ_ACL_SUBSCRIBE. */
#define ACCESS_READ 1
#define ACCESS_WRITE 2
#define ACCESS_SUBSCRIBE 4

/* The reason of a decision. Only REASON_PERMISSION allows; 0 is a denial. */
enum reason {
	REASON_NO_PERMISSION,
	REASON_PERMISSION,
	REASON_DENIED_BY_PERMISSION,
	REASON_SHARE_REACHES_DENIED,
	REASON_MALFORMED,
	REASON_CLIENT_ID_NOT_ALLOWED,
	REASON_NO_VALID_CERTIFICATE,
	REASON_UNKNOWN_USER,
	REASON_USER_DISABLED,
	REASON_DAMAGED_POLICY,
	REASON_POLICY_NOT_LOADED,
};

struct ruleset;

/* Returns the text of a reason as the service writes it, such as "no-permission". */
const char *reason_text(enum reason reason);

/* Returns an empty rule set, which allows nothing; NULL if there is no memory. */
struct ruleset *ruleset_new(void);

/*
 * Adds a rule of the form `[deny ]read|write|readWrite TOPIC-FILTER`, in which %u and %c are whole levels.
 * Returns false, and adds nothing, if the rule is invalid or there is no memory. The order of rules decides
 * only which of two reasons a denied shared subscription gets.
 */
bool ruleset_add(struct ruleset *set, const char *rule);

/* Returns the memory reserved for further rules to the system; more can still be added. */
void ruleset_trim(struct ruleset *set);

void ruleset_free(struct ruleset *set);

/*
 * Returns the decision on one access: REASON_PERMISSION or the reason of the denial. `topic` is a topic filter or
 * `$share/<group>/<topic filter>` for ACCESS_SUBSCRIBE, otherwise a topic. The username and the client id are the
 * values of %u and %c; a NULL or empty one matches nothing. Allocates nothing.
 */
enum reason ruleset_decide(const struct ruleset *set, int access, const char *topic, const char *username,
	const char *client_id);

/*
 * Returns whether a client id matches one of the patterns, in which %u is the username and * zero or more
 * characters; true if there are no patterns. NULL is an empty name. Allocates nothing.
 */
bool client_id_allowed(const char *const *patterns, size_t count, const char *username, const char *client_id);

#endif
