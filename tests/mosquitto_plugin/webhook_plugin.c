/*
 * A Mosquitto plugin for the tests: it calls HTTP webhooks the way the http backend of
 * mosquitto-go-auth 3.0.0 does and takes the same auth_opt_* options, so that a configuration
 * written for go-auth runs on Debian's Mosquitto with nothing changed but the path of the .so.
 *
 *     gcc -shared -fPIC -o webhook_plugin.so webhook_plugin.c -lcurl
 *
 * An option that would change what go-auth does, and that is not built here, stops the broker
 * with a line in its log; go-auth's other options (log_level, hasher, ...) are accepted.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

enum answer { NO, YES, FAILED };
enum response_mode { BY_STATUS, BY_JSON, BY_TEXT };

struct webhooks {
	CURL *curl; /* one for the life of the plugin, and so one kept-alive connection */
	struct curl_slist *headers;
	regex_t json_member;
	char *user_url, *acl_url, *superuser_url; /* the last may be NULL: it is not asked then */
	enum response_mode response_mode;
	bool form, replayable;
	long retries;
};

struct field {
	const char *name, *value;
	bool is_number;
};

struct text {
	char *bytes;
	size_t length, sent;
};

/* ---- Request bodies. Fields are listed alphabetically, as Go sorts both maps and forms. ---- */

/* The length of the well-formed UTF-8 sequence at `at`, 0 if there is none. */
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

static void write_json_ascii(FILE *out, char byte)
{
	static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
	const char *found = strchr(special, byte);

	if (found)
		fprintf(out, "\\%c", letter[found - special]);
	else if (byte < 0x20 || strchr("<>&", byte))
		fprintf(out, "\\u%04x", (unsigned)byte);
	else
		fputc(byte, out);
}

/* Escapes what Go's encoding/json escapes. Only a password can hold bytes that are not UTF-8. */
static void write_json_string(FILE *out, const char *at)
{
	size_t length;

	fputc('"', out);
	for (; *at; at += length ? length : 1) {
		length = utf8_length((const unsigned char *)at);
		if (length == 0)
			fputs("\\ufffd", out);
		else if (length == 1)
			write_json_ascii(out, *at);
		else if (!strncmp(at, "\u2028", length) || !strncmp(at, "\u2029", length))
			fprintf(out, "\\u202%c", at[2] == '\xa8' ? '8' : '9');
		else
			fwrite(at, 1, length, out);
	}
	fputc('"', out);
}

static void write_json(FILE *out, const struct field *field)
{
	for (const char *separator = "{"; field->name; field++, separator = ",") {
		fprintf(out, "%s\"%s\":", separator, field->name);
		if (field->is_number)
			fputs(field->value, out);
		else
			write_json_string(out, field->value);
	}
	fputc('}', out);
}

static void write_form(FILE *out, const struct field *field)
{
	for (const char *separator = ""; field->name; field++, separator = "&") {
		fprintf(out, "%s%s=", separator, field->name);
		for (const unsigned char *at = (const unsigned char *)field->value; *at; at++)
			if (isalnum(*at) || strchr("-_.~", *at))
				fputc(*at, out);
			else
				fprintf(out, *at == ' ' ? "+" : "%%%02X", *at);
	}
}

/* ---- Answers ---- */

#define SPACE "[ \t\r\n]*"
#define STRING "\"([^\"\\\x01-\x1f]|\\\\([\"\\/bfnrt]|u[0-9a-fA-F]{4}))*\""
#define NUMBER "-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?"
#define MEMBER "^" SPACE "(" STRING ")" SPACE ":" SPACE "(" STRING "|true|false|null|" NUMBER ")" SPACE
enum { NAME = 1, VALUE = 4, GROUPS }; /* the groups of MEMBER: two more stand inside STRING */

static const char *skip_space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

/* Whether the member is one that Go can put into {ok bool, error string}; sets `ok`. */
static bool take_member(const char *name, const char *value, bool *ok)
{
	if (!strncasecmp(name, "\"error\"", 7))
		return *value == '"' || *value == 'n';
	if (strncasecmp(name, "\"ok\"", 4) || *value == 'n')
		return true;
	*ok = *value == 't';
	return *ok || *value == 'f';
}

/* Reads a flat object. One that nests is an error here, though Go would skip a nested member. */
static enum answer read_json(const struct webhooks *webhooks, const char *at)
{
	regmatch_t group[GROUPS];
	bool ok = false;
	char next = ',';

	at = skip_space(at);
	if (*at != '{')
		return FAILED;
	at = skip_space(at + 1);
	if (*at == '}')
		next = *at++;
	while (next == ',' && !regexec(&webhooks->json_member, at, GROUPS, group, 0)) {
		if (!take_member(at + group[NAME].rm_so, at + group[VALUE].rm_so, &ok))
			return FAILED;
		at += group[0].rm_eo;
		next = *at++;
	}
	if (next != '}' || *skip_space(at))
		return FAILED;
	return ok ? YES : NO;
}

static enum answer read_answer(const struct webhooks *webhooks, const struct text *body)
{
	long status = 0;

	curl_easy_getinfo(webhooks->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || status >= 300)
		return status >= 500 ? FAILED : NO;
	if (webhooks->response_mode == BY_JSON)
		return read_json(webhooks, body->bytes);
	if (webhooks->response_mode == BY_TEXT)
		return body->length == 2 && !memcmp(body->bytes, "ok", 2) ? YES : NO;
	return YES;
}

/* ---- Requests ---- */

static size_t send_body(char *buffer, size_t size, size_t count, void *user)
{
	struct text *body = user;
	size_t rest = body->length - body->sent, room = size * count;
	size_t length = rest < room ? rest : room;

	memcpy(buffer, body->bytes + body->sent, length);
	body->sent += length;
	return length;
}

/*
 * libcurl sends a body again for two reasons: after a redirect that keeps the method, and when a
 * kept connection died before the first byte of an answer. It has no option against the second,
 * and with CURLOPT_POSTFIELDS it does not even ask. A body behind callbacks makes it ask here, and
 * a refusal is an error of the transfer: what Go does with every method that is not safe. (Both
 * replace a connection that was closed while it lay idle, without a word.)
 */
static int rewind_body(void *user, curl_off_t offset, int origin)
{
	struct webhooks *webhooks = user;
	struct text *body = NULL;
	long status = 0;

	curl_easy_getinfo(webhooks->curl, CURLINFO_PRIVATE, (char **)&body);
	curl_easy_getinfo(webhooks->curl, CURLINFO_RESPONSE_CODE, &status);
	if (origin != SEEK_SET || (!status && !webhooks->replayable))
		return CURL_SEEKFUNC_FAIL;
	body->sent = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* The log never shows the URL, which may carry the secret. */
static enum answer post(const struct webhooks *webhooks, const char *url, struct text *body)
{
	struct text reply = {0};
	FILE *reply_stream = open_memstream(&reply.bytes, &reply.length);

	curl_easy_setopt(webhooks->curl, CURLOPT_URL, url);
	curl_easy_setopt(webhooks->curl, CURLOPT_READDATA, body);
	curl_easy_setopt(webhooks->curl, CURLOPT_PRIVATE, body);
	curl_easy_setopt(webhooks->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->length);
	curl_easy_setopt(webhooks->curl, CURLOPT_WRITEDATA, reply_stream);
	CURLcode code = curl_easy_perform(webhooks->curl);
	fclose(reply_stream);

	enum answer answer = code == CURLE_OK ? read_answer(webhooks, &reply) : FAILED;
	if (answer == FAILED)
		mosquitto_log_printf(MOSQ_LOG_ERR, "webhook error: %s",
			code == CURLE_OK ? "5xx or an unreadable answer" : curl_easy_strerror(code));
	free(reply.bytes);
	return answer;
}

static enum answer ask(const struct webhooks *webhooks, const char *url, const struct field *fields)
{
	struct text body = {0};
	FILE *stream = open_memstream(&body.bytes, &body.length);

	(webhooks->form ? write_form : write_json)(stream, fields);
	fclose(stream);
	enum answer answer = post(webhooks, url, &body);
	free(body.bytes);
	return answer;
}

/* ---- Checks ---- */

static enum answer ask_user(const struct webhooks *webhooks, const struct field *fields)
{
	return ask(webhooks, webhooks->user_url, fields);
}

/* An error of the superuser check is forgotten if the ACL allows, and counts if it does not. */
static enum answer ask_acl(const struct webhooks *webhooks, const struct field *fields)
{
	enum answer superuser = NO, acl;

	if (webhooks->superuser_url)
		superuser = ask(webhooks, webhooks->superuser_url, fields + 3); /* the username alone */
	if (superuser == YES)
		return YES;
	acl = ask(webhooks, webhooks->acl_url, fields);
	return acl == NO ? superuser : acl;
}

/* Repeats a check at once, after errors only; `denied` is the broker's word for a plain no. */
static int decide(const struct webhooks *webhooks, const struct field *fields, int denied,
		enum answer (*check)(const struct webhooks *, const struct field *))
{
	enum answer answer = FAILED;

	for (long tries = 0; tries <= webhooks->retries && answer == FAILED; tries++)
		answer = check(webhooks, fields);
	if (answer == FAILED)
		return MOSQ_ERR_UNKNOWN;
	return answer == YES ? MOSQ_ERR_SUCCESS : denied;
}

int mosquitto_auth_unpwd_check(void *user_data, struct mosquitto *client, const char *username,
		const char *password)
{
	const struct field fields[] = {
		{"clientid", mosquitto_client_id(client), false},
		{"password", password, false},
		{"username", username, false},
		{0},
	};

	if (!username || !*username || !password || !*password)
		return MOSQ_ERR_AUTH;
	return decide(user_data, fields, MOSQ_ERR_AUTH, ask_user);
}

int mosquitto_auth_acl_check(void *user_data, int access, struct mosquitto *client,
		const struct mosquitto_acl_msg *message)
{
	const char *username = mosquitto_client_username(client);
	char acc[12];
	const struct field fields[] = {
		{"acc", acc, true},
		{"clientid", mosquitto_client_id(client), false},
		{"topic", message->topic, false},
		{"username", username, false},
		{0},
	};

	snprintf(acc, sizeof acc, "%d", access);
	if (!username || !*username || !fields[1].value)
		return MOSQ_ERR_ACL_DENIED;
	return decide(user_data, fields, MOSQ_ERR_ACL_DENIED, ask_acl);
}

/* ---- Options ---- */

struct options {
	const struct mosquitto_opt *list;
	int count;
};

/* The value of an option, the last one if it is repeated, or `fallback`. */
static const char *option(const struct options *options, const char *name, const char *fallback)
{
	for (int i = 0; i < options->count; i++)
		if (!strcmp(options->list[i].key, name))
			fallback = options->list[i].value;
	return fallback;
}

static bool is(const struct options *options, const char *name, const char *value)
{
	return !strcmp(option(options, name, ""), value);
}

/* Why the broker must not start with these options, or NULL. */
static const char *objection_to(const struct options *options)
{
	if (!is(options, "backends", "http"))
		return "backends is not http";
	if (is(options, "http_host", "") || is(options, "http_port", ""))
		return "http_host and http_port are required";
	if (is(options, "http_getuser_uri", "") || is(options, "http_aclcheck_uri", ""))
		return "http_getuser_uri and http_aclcheck_uri are required";
	if (is(options, "http_with_tls", "true"))
		return "http_with_tls is not supported";
	if (is(options, "cache", "true"))
		return "cache is not supported";
	if (is(options, "check_prefix", "true") || !is(options, "http_register", ""))
		return "check_prefix and http_register are not supported";
	if (is(options, "http_params_mode", "form") && is(options, "http_method", "GET"))
		return "http_params_mode form does not go with http_method GET";
	return NULL;
}

static char *url_of(const struct options *options, const char *uri_option)
{
	const char *uri = option(options, uri_option, NULL);
	char *url;

	if (!uri || asprintf(&url, "http://%s:%s%s", option(options, "http_host", ""),
			option(options, "http_port", ""), uri) < 0)
		return NULL;
	return url;
}

static enum response_mode response_mode_of(const struct options *options)
{
	if (is(options, "http_response_mode", "json"))
		return BY_JSON;
	return is(options, "http_response_mode", "text") ? BY_TEXT : BY_STATUS;
}

/*
 * A form is always posted, and always under the name of Go's own client. (CUSTOMREQUEST outlives
 * a redirect: a redirected PUT stays PUT here, where Go turns to GET after 301, 302 and 303.)
 */
static const char *set_method_and_agent(CURL *curl, const struct options *options, bool form)
{
	const char *method = "POST", *agent = "Go-http-client/1.1";
	char version[32];

	snprintf(version, sizeof version, "mosquitto-%d.%d.%d",
		LIBMOSQUITTO_MAJOR, LIBMOSQUITTO_MINOR, LIBMOSQUITTO_REVISION);
	if (!form) {
		agent = option(options, "http_user_agent", version);
		if (is(options, "http_method", "GET") || is(options, "http_method", "PUT"))
			method = option(options, "http_method", method);
	}
	curl_easy_setopt(curl, CURLOPT_POST, 1L);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, strcmp(method, "POST") ? method : NULL);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, agent);
	return method;
}

/* A header without a value takes out one that libcurl would add by itself. */
static struct curl_slist *set_headers(CURL *curl, bool form)
{
	struct curl_slist *headers = curl_slist_append(NULL, form
		? "Content-Type: application/x-www-form-urlencoded" : "Content-Type: application/json");

	headers = curl_slist_append(headers, "Accept:");
	headers = curl_slist_append(headers, "Expect:");
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, "gzip");
	return headers;
}

static void set_transfer(struct webhooks *webhooks, const struct options *options)
{
	CURL *curl = webhooks->curl;

	curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(curl, CURLOPT_READFUNCTION, send_body);
	curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, rewind_body);
	curl_easy_setopt(curl, CURLOPT_SEEKDATA, webhooks);
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 10L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, atol(option(options, "http_timeout", "5")));
	/* libcurl drops a connection after two idle minutes; go-auth keeps it. */
	curl_easy_setopt(curl, CURLOPT_MAXAGE_CONN, 365L * 24 * 3600);
	curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* go-auth reads no proxy variable */
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L); /* signals belong to the broker */
}

/* ---- What the broker calls at its start, end and SIGHUP ---- */

int mosquitto_auth_plugin_version(void)
{
	return MOSQ_AUTH_PLUGIN_VERSION;
}

int mosquitto_auth_plugin_init(void **user_data, struct mosquitto_opt *opts, int opt_count)
{
	const struct options options = {opts, opt_count};
	const char *objection = objection_to(&options);
	struct webhooks *webhooks;

	if (objection) {
		mosquitto_log_printf(MOSQ_LOG_ERR, "webhook plugin: wrong auth_opt: %s", objection);
		return MOSQ_ERR_INVAL;
	}
	*user_data = webhooks = calloc(1, sizeof *webhooks);
	if (!webhooks || !(webhooks->curl = curl_easy_init()))
		return MOSQ_ERR_NOMEM;
	webhooks->user_url = url_of(&options, "http_getuser_uri");
	webhooks->acl_url = url_of(&options, "http_aclcheck_uri");
	if (!is(&options, "disable_superuser", "true"))
		webhooks->superuser_url = url_of(&options, "http_superuser_uri");
	webhooks->response_mode = response_mode_of(&options);
	webhooks->form = is(&options, "http_params_mode", "form");
	webhooks->retries = atol(option(&options, "retry_count", "0"));
	webhooks->replayable = !strcmp("GET",
		set_method_and_agent(webhooks->curl, &options, webhooks->form));
	webhooks->headers = set_headers(webhooks->curl, webhooks->form);
	set_transfer(webhooks, &options);
	return regcomp(&webhooks->json_member, MEMBER, REG_EXTENDED) ? MOSQ_ERR_INVAL : MOSQ_ERR_SUCCESS;
}

int mosquitto_auth_plugin_cleanup(void *user_data, struct mosquitto_opt *opts, int opt_count)
{
	struct webhooks *webhooks = user_data;

	(void)opts, (void)opt_count;
	curl_easy_cleanup(webhooks->curl);
	curl_slist_free_all(webhooks->headers);
	regfree(&webhooks->json_member);
	free(webhooks->user_url);
	free(webhooks->acl_url);
	free(webhooks->superuser_url);
	free(webhooks);
	return MOSQ_ERR_SUCCESS;
}

/* Called at a SIGHUP too: go-auth reads no option again, and neither does this. */
int mosquitto_auth_security_init(void *user_data, struct mosquitto_opt *opts, int opt_count,
		bool reload)
{
	(void)user_data, (void)opts, (void)opt_count, (void)reload;
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_auth_security_cleanup(void *user_data, struct mosquitto_opt *opts, int opt_count,
		bool reload)
{
	(void)user_data, (void)opts, (void)opt_count, (void)reload;
	return MOSQ_ERR_SUCCESS;
}
