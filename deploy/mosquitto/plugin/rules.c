#define _GNU_SOURCE
#include "rules.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES 65535 /* the limits of Mosquitto and of authsvc/policy/topics.py */
#define MAX_LEVELS 200
#define SHARE "$share"

enum kind { LITERAL, PLUS, REST, MISPLACED }; /* text, `+`, `#`, a wildcard that is not a whole level */

/* One level of a topic, topic filter or rule. It refers to the text that was split. */
struct level {
	const char *text;
	uint32_t hash;
	uint16_t length;
	uint8_t kind;
};

/* Bits of a rule: the operations (ACCESS_READ, ACCESS_WRITE) that it allows or denies. */
#define ALLOW(operation) ((uint8_t)(operation))
#define DENY(operation) ((uint8_t)((operation) << 2))

#define MAX_RULES ((1u << 28) - 1)
#define NO_RULE MAX_RULES

/* The rules that end at one place of the tree. Packed, because a broker may hold a million of them. */
struct marks {
	uint32_t bits : 4;
	uint32_t first_deny_read : 28; /* the number of the first rule that denies to read; NO_RULE if there is none */
};

/*
 * A node of the tree of levels. Nodes refer to each other by their index, so one array holds them all. Index 0 is a
 * root, which is nobody's child, and so it means "none".
 */
struct node {
	uint32_t parent, first_child, next_sibling; /* children with a literal level are also found by hash */
	uint32_t plus, username, client_id;         /* the children for `+`, %u and %c */
	uint32_t name;                              /* where the text of a literal level begins in `names` */
	uint16_t length;
	struct marks exact; /* rules that end with this level */
	struct marks rest;  /* rules that end with this level and `#` */
	struct marks below; /* all rules that end at this node or below it */
};

/* Rules whose first level begins with `$` and other rules never match the same topics: each have their own root. */
enum { PLAIN_ROOT, DOLLAR_ROOT, ROOTS };

struct ruleset {
	struct node *nodes;
	char *names;     /* texts of literal levels, one after the other */
	uint32_t *slots; /* hash table of nodes with a literal level, by parent and text; at most half full */
	size_t node_count, node_capacity, name_bytes, name_capacity, named, slot_count;
	uint32_t rules;
};

const char *reason_text(enum reason reason)
{
	static const char *const texts[] = {
		[REASON_NO_PERMISSION] = "no-permission",
		[REASON_PERMISSION] = "permission",
		[REASON_DENIED_BY_PERMISSION] = "denied-by-permission",
		[REASON_SHARE_REACHES_DENIED] = "share-reaches-denied-topics",
		[REASON_MALFORMED] = "malformed",
		[REASON_CLIENT_ID_NOT_ALLOWED] = "client-id-not-allowed",
		[REASON_NO_VALID_CERTIFICATE] = "no-valid-certificate",
		[REASON_UNKNOWN_USER] = "unknown-user",
		[REASON_USER_DISABLED] = "user-disabled",
		[REASON_DAMAGED_POLICY] = "damaged-policy",
		[REASON_POLICY_NOT_LOADED] = "policy-not-loaded",
	};

	return texts[reason];
}

/* ---- Levels ---- */

/* Returns the length of the UTF-8 sequence at `at`, 0 if it is not well formed. The text ends with a NUL. */
static size_t utf8_length(const unsigned char *at)
{
	size_t length = *at < 0x80 ? 1 : *at < 0xc2 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : *at < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < length; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	bool overlong = (*at == 0xe0 && at[1] < 0xa0) || (*at == 0xf0 && at[1] < 0x90);
	bool surrogate = *at == 0xed && at[1] > 0x9f;
	bool too_high = *at == 0xf4 && at[1] > 0x8f;
	return overlong || surrogate || too_high ? 0 : length;
}

static bool is_utf8(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	while (*at) {
		size_t length = utf8_length(at);
		if (!length)
			return false;
		at += length;
	}
	return true;
}

static uint32_t hash_byte(uint32_t hash, char byte)
{
	return (hash ^ (unsigned char)byte) * 16777619u; /* FNV-1a */
}

static uint32_t hash_of(const char *text, size_t length)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < length; i++)
		hash = hash_byte(hash, text[i]);
	return hash;
}

/* Returns the level that begins at `text` and ends before the next `/` or at the end. */
static struct level level_at(const char *text)
{
	size_t length = strcspn(text, "/"), before_wildcard = strcspn(text, "/+#");
	enum kind kind = LITERAL;

	if (before_wildcard < length)
		kind = length > 1 ? MISPLACED : *text == '+' ? PLUS : REST;
	return (struct level){text, hash_of(text, length), (uint16_t)length, kind};
}

/* Splits a topic or topic filter. Returns the number of its levels, 0 if MQTT does not allow it as a topic filter. */
static size_t split(const char *text, struct level levels[MAX_LEVELS])
{
	size_t length = strnlen(text, MAX_BYTES + 1), count = 0;

	if (!length || length > MAX_BYTES || !is_utf8(text))
		return 0;
	for (const char *at = text; count < MAX_LEVELS; at++) {
		struct level *level = &levels[count++];
		*level = level_at(at);
		at += level->length;
		if (level->kind == MISPLACED || (level->kind == REST && *at))
			return 0;
		if (!*at)
			return count;
	}
	return 0;
}

static bool level_equals(const struct level *level, const char *text)
{
	return !strncmp(text, level->text, level->length) && !text[level->length];
}

/* ---- Building a rule set ---- */

/* Makes room for `needed` items and returns true; false if there is no memory, or an index would exceed 32 bits. */
static bool reserve(void **items, size_t *capacity, size_t needed, size_t item_size)
{
	size_t wanted = *capacity ? *capacity : 8;

	if (needed <= *capacity)
		return true;
	if (needed > UINT32_MAX)
		return false;
	while (wanted < needed)
		wanted *= 2;
	void *larger = realloc(*items, wanted * item_size);
	if (!larger)
		return false;
	*items = larger;
	*capacity = wanted;
	return true;
}

/* Returns the index of a new node, 0 if there is no memory. */
static uint32_t node_new(struct ruleset *set, uint32_t parent)
{
	static const struct marks none = {0, NO_RULE};

	if (!reserve((void **)&set->nodes, &set->node_capacity, set->node_count + 1, sizeof(*set->nodes)))
		return 0;
	set->nodes[set->node_count] = (struct node){.parent = parent, .exact = none, .rest = none, .below = none};
	return (uint32_t)set->node_count++;
}

/* Returns the first slot in which a child may be. */
static size_t slot_of(const struct ruleset *set, uint32_t parent, uint32_t hash)
{
	return (hash + parent * 2654435769u) & (set->slot_count - 1);
}

static size_t next_slot(const struct ruleset *set, size_t slot)
{
	return (slot + 1) & (set->slot_count - 1);
}

static uint32_t literal_child(const struct ruleset *set, uint32_t parent, const struct level *level)
{
	for (size_t slot = slot_of(set, parent, level->hash); set->slots[slot]; slot = next_slot(set, slot)) {
		const struct node *node = &set->nodes[set->slots[slot]];
		if (node->parent == parent && node->length == level->length &&
			!memcmp(set->names + node->name, level->text, level->length))
			return set->slots[slot];
	}
	return 0;
}

static void fill_slot(struct ruleset *set, uint32_t index)
{
	const struct node *node = &set->nodes[index];
	size_t slot = slot_of(set, node->parent, hash_of(set->names + node->name, node->length));

	while (set->slots[slot])
		slot = next_slot(set, slot);
	set->slots[slot] = index;
}

/* Doubles the hash table. */
static bool grow_slots(struct ruleset *set)
{
	size_t old_count = set->slot_count;
	uint32_t *old = set->slots, *larger = calloc(old_count * 2, sizeof(*larger));

	if (!larger)
		return false;
	set->slots = larger;
	set->slot_count = old_count * 2;
	for (size_t i = 0; i < old_count; i++)
		if (old[i])
			fill_slot(set, old[i]);
	free(old);
	return true;
}

/* Makes a new node the child of its parent for a literal level. */
static bool name_node(struct ruleset *set, uint32_t index, const struct level *level)
{
	struct node *node = &set->nodes[index], *parent = &set->nodes[node->parent];

	/* One byte more, so that an empty text has an address too. */
	if (!reserve((void **)&set->names, &set->name_capacity, set->name_bytes + level->length + 1, 1))
		return false;
	if ((set->named + 1) * 2 > set->slot_count && !grow_slots(set))
		return false;
	node->name = (uint32_t)set->name_bytes;
	node->length = level->length;
	memcpy(set->names + set->name_bytes, level->text, level->length);
	set->name_bytes += level->length;
	set->named++;
	fill_slot(set, index);
	node->next_sibling = parent->first_child;
	parent->first_child = index;
	return true;
}

/* Returns where a node keeps its child for `+`, %u or %c; NULL for a literal level. */
static uint32_t *special_child(struct node *node, const struct level *level)
{
	if (level->kind == PLUS)
		return &node->plus;
	if (level_equals(level, "%u"))
		return &node->username;
	return level_equals(level, "%c") ? &node->client_id : NULL;
}

/* Returns the child for a level of a rule, which is new if there was none; 0 if there is no memory. */
static uint32_t child_for(struct ruleset *set, uint32_t parent, const struct level *level)
{
	uint32_t *special = special_child(&set->nodes[parent], level);
	uint32_t child = special ? *special : literal_child(set, parent, level);

	if (child || !(child = node_new(set, parent)))
		return child;
	special = special_child(&set->nodes[parent], level); /* the nodes may have moved */
	if (special)
		*special = child;
	return special || name_node(set, child, level) ? child : 0;
}

static void mark(struct marks *marks, uint8_t bits, uint32_t rule)
{
	marks->bits |= bits;
	if ((bits & DENY(ACCESS_READ)) && rule < marks->first_deny_read)
		marks->first_deny_read = rule;
}

/* Returns where the resource of a rule begins and stores the rule's bits; NULL if the rule has another form. */
static const char *parse_rule(const char *rule, uint8_t *bits)
{
	static const struct {
		const char *text;
		uint8_t bits;
	} operations[] = {{"read ", ACCESS_READ}, {"write ", ACCESS_WRITE}, {"readWrite ", ACCESS_READ | ACCESS_WRITE}};
	bool denies = !strncmp(rule, "deny ", strlen("deny "));

	rule += denies ? strlen("deny ") : 0;
	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
		size_t length = strlen(operations[i].text);
		if (!strncmp(rule, operations[i].text, length)) {
			*bits = denies ? DENY(operations[i].bits) : ALLOW(operations[i].bits);
			return rule + length;
		}
	}
	return NULL;
}

/* Splits the resource of a rule. Returns the number of its levels, 0 if it is not valid. */
static size_t split_rule(const char *resource, struct level levels[MAX_LEVELS])
{
	size_t count = split(resource, levels);

	for (size_t i = 0; i < count; i++) {
		const struct level *level = &levels[i];
		for (size_t at = 0; level->length > strlen("%u") && at + 1 < level->length; at++)
			if (level->text[at] == '%' && (level->text[at + 1] == 'u' || level->text[at + 1] == 'c'))
				return 0;
	}
	return count && level_equals(&levels[0], SHARE) ? 0 : count;
}

struct ruleset *ruleset_new(void)
{
	struct ruleset *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	set->slot_count = 8;
	set->slots = calloc(set->slot_count, sizeof(*set->slots));
	for (int root = 0; root < ROOTS; root++)
		node_new(set, PLAIN_ROOT);
	if (set->slots && set->node_count == ROOTS)
		return set;
	ruleset_free(set);
	return NULL;
}

bool ruleset_add(struct ruleset *set, const char *rule)
{
	struct level levels[MAX_LEVELS];
	uint8_t bits;
	const char *resource = parse_rule(rule, &bits);
	size_t count = resource ? split_rule(resource, levels) : 0;

	if (!count || set->rules == MAX_RULES)
		return false;
	bool has_rest = levels[count - 1].kind == REST;
	uint32_t index = *resource == '$' ? DOLLAR_ROOT : PLAIN_ROOT;
	for (size_t i = 0; i < count - has_rest; i++)
		if (!(index = child_for(set, index, &levels[i])))
			return false;
	mark(has_rest ? &set->nodes[index].rest : &set->nodes[index].exact, bits, set->rules);
	for (; index >= ROOTS; index = set->nodes[index].parent)
		mark(&set->nodes[index].below, bits, set->rules);
	mark(&set->nodes[index].below, bits, set->rules);
	set->rules++;
	return true;
}

void ruleset_trim(struct ruleset *set)
{
	struct node *nodes = realloc(set->nodes, set->node_count * sizeof(*nodes));
	char *names = set->name_bytes ? realloc(set->names, set->name_bytes) : NULL;

	if (nodes) {
		set->nodes = nodes;
		set->node_capacity = set->node_count;
	}
	if (names) {
		set->names = names;
		set->name_capacity = set->name_bytes;
	}
}

void ruleset_free(struct ruleset *set)
{
	if (!set)
		return;
	free(set->nodes);
	free(set->names);
	free(set->slots);
	free(set);
}

/* ---- Deciding ---- */

/* One question, and what the search has found so far. */
struct search {
	const struct ruleset *set;
	const struct level *levels;
	size_t count;
	const char *username, *client_id;
	uint8_t allow, deny; /* the bits of a rule that allows or denies the operation */
	bool shared;
	bool allowed, denied;
	bool deny_covers;    /* whether the first deny rule covers the filter; otherwise it only overlaps it */
	uint32_t first_deny; /* for a shared subscription only */
};

/* Takes note of rules that cover what is asked, or only overlap it, which matters for a shared subscription. */
static void note(struct search *search, const struct marks *marks, bool covers)
{
	search->allowed |= covers && (marks->bits & search->allow);
	if (!(marks->bits & search->deny) || (!covers && !search->shared))
		return;
	if (search->denied && marks->first_deny_read >= search->first_deny)
		return;
	search->denied = true;
	search->deny_covers = covers;
	search->first_deny = marks->first_deny_read;
}

static void search_node(struct search *search, uint32_t index, size_t depth, bool covers);

/* Searches a child unless it is absent (0) or nothing below it can change the decision. */
static void search_child(struct search *search, uint32_t child, size_t depth, bool covers)
{
	uint8_t wanted = search->deny | (covers && !search->allowed ? search->allow : 0);

	if (search->denied && !search->shared)
		return;
	if (child && (search->set->nodes[child].below.bits & wanted))
		search_node(search, child, depth, covers);
}

/* Searches the children that overlap the level `+` without covering it. */
static void search_overlapping(struct search *search, const struct node *node, size_t depth)
{
	for (uint32_t child = node->first_child; child; child = search->set->nodes[child].next_sibling)
		search_child(search, child, depth, false);
	search_child(search, node->username, depth, false);
	search_child(search, node->client_id, depth, false);
}

/* Returns whether %u or %c with this value is the given literal level. A literal level contains no `+`, `#` or `/`. */
static bool is_value(const struct level *level, const char *value)
{
	return level->length && level_equals(level, value);
}

/*
 * Searches the rules at and below a node that match the levels before `depth`. `covers` says whether the levels of
 * the rule cover those of the question; otherwise they only overlap.
 */
static void search_node(struct search *search, uint32_t index, size_t depth, bool covers)
{
	const struct node *node = &search->set->nodes[index];
	const struct level *level = &search->levels[depth];

	note(search, &node->rest, covers); /* `a/#` also matches `a` */
	if (depth == search->count) {
		note(search, &node->exact, covers);
	} else if (level->kind == REST) {
		note(search, &node->below, false);
	} else {
		search_child(search, node->plus, depth + 1, covers);
		if (level->kind == PLUS) {
			if (search->shared)
				search_overlapping(search, node, depth + 1);
			return;
		}
		search_child(search, literal_child(search->set, index, level), depth + 1, covers);
		if (node->username && is_value(level, search->username))
			search_child(search, node->username, depth + 1, covers);
		if (node->client_id && is_value(level, search->client_id))
			search_child(search, node->client_id, depth + 1, covers);
	}
}

/* Returns the topic filter of a subscription, NULL if it is a malformed shared one. */
static const char *inner_filter(const char *requested, bool *shared)
{
	size_t prefix = strlen(SHARE);

	*shared = !strncmp(requested, SHARE, prefix) && (!requested[prefix] || requested[prefix] == '/');
	if (!*shared)
		return requested;
	if (!requested[prefix])
		return NULL;
	const char *group = requested + prefix + 1;
	size_t length = strcspn(group, "/+#");
	return length && group[length] == '/' && group[length + 1] ? group + length + 1 : NULL;
}

static bool has_wildcard(const struct level *levels, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (levels[i].kind != LITERAL)
			return true;
	return false;
}

static enum reason search_reason(const struct search *search)
{
	if (search->denied)
		return search->deny_covers ? REASON_DENIED_BY_PERMISSION : REASON_SHARE_REACHES_DENIED;
	return search->allowed ? REASON_PERMISSION : REASON_NO_PERMISSION;
}

enum reason ruleset_decide(const struct ruleset *set, int access, const char *topic, const char *username,
	const char *client_id)
{
	struct level levels[MAX_LEVELS];
	int operation = access == ACCESS_SUBSCRIBE ? ACCESS_READ : access;
	struct search search = {.set = set, .levels = levels, .username = username ? username : "",
		.client_id = client_id ? client_id : "", .allow = ALLOW(operation), .deny = DENY(operation)};

	if (operation != ACCESS_READ && operation != ACCESS_WRITE)
		return REASON_NO_PERMISSION;
	if (access == ACCESS_SUBSCRIBE && !(topic = inner_filter(topic, &search.shared)))
		return REASON_MALFORMED;
	search.count = split(topic, levels);
	if (!search.count || (access != ACCESS_SUBSCRIBE && has_wildcard(levels, search.count)))
		return REASON_MALFORMED;
	search_node(&search, *topic == '$' ? DOLLAR_ROOT : PLAIN_ROOT, 0, true);
	return search_reason(&search);
}

/* ---- Allowed client ids ---- */

/* The text between two * of a pattern. It is compared without replacing %u, so no username can add a wildcard. */
struct part {
	const char *text, *end;
	const char *username;
	size_t username_length;
	size_t length; /* with %u replaced */
};

static bool is_username(const struct part *part, const char *at)
{
	return at[0] == '%' && at + 1 < part->end && at[1] == 'u';
}

static struct part part_of(const char *text, const char *end, const char *username)
{
	struct part part = {text, end, username, strlen(username), 0};

	for (const char *at = text; at < end; at += is_username(&part, at) ? 2 : 1)
		part.length += is_username(&part, at) ? part.username_length : 1;
	return part;
}

/* Returns whether `text`, which has at least as many bytes as the part, begins with it. */
static bool part_matches(const struct part *part, const char *text)
{
	for (const char *at = part->text; at < part->end;) {
		if (is_username(part, at)) {
			if (memcmp(text, part->username, part->username_length) != 0)
				return false;
			text += part->username_length;
			at += strlen("%u");
		} else if (*text++ != *at++) {
			return false;
		}
	}
	return true;
}

/* Returns the first place between two others where the part matches, NULL if there is none. */
static const char *part_find(const struct part *part, const char *from, const char *to)
{
	for (; (size_t)(to - from) >= part->length; from++) {
		if (part_matches(part, from))
			return from;
		if (from == to)
			break;
	}
	return NULL;
}

/* Each part is searched once, to the right of the part before, so the match never backtracks. */
static bool pattern_matches(const char *pattern, const char *username, const char *client_id)
{
	size_t length = strlen(client_id);
	const char *star = strchrnul(pattern, '*'), *last_star = strrchr(pattern, '*');
	struct part first = part_of(pattern, star, username);

	if (!last_star)
		return first.length == length && part_matches(&first, client_id);
	struct part last = part_of(last_star + 1, last_star + 1 + strlen(last_star + 1), username);
	if (first.length + last.length > length)
		return false;
	const char *from = client_id + first.length, *to = client_id + length - last.length;
	if (!part_matches(&first, client_id) || !part_matches(&last, to))
		return false;
	while (star < last_star) {
		const char *next = strchr(star + 1, '*');
		struct part middle = part_of(star + 1, next, username);
		if (!(from = part_find(&middle, from, to)))
			return false;
		from += middle.length;
		star = next;
	}
	return true;
}

bool client_id_allowed(const char *const *patterns, size_t count, const char *username, const char *client_id)
{
	for (size_t i = 0; i < count; i++)
		if (pattern_matches(patterns[i], username ? username : "", client_id ? client_id : ""))
			return true;
	return !count;
}
