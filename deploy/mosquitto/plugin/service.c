#define _GNU_SOURCE /* asprintf */
#include "service.h"

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uthash.h>
#include <utlist.h>

#include "reports.h"

#define PROTOCOL 1
#define LEVEL_INFO 1    /* MOSQ_LOG_INFO */
#define LEVEL_WARNING 4 /* MOSQ_LOG_WARNING */
#define CONNECT_MS 1000L
#define ANSWER_MS 2000L
#define BATCH_MS 10000L
#define MAX_ANSWER (64 * 1024 * 1024)
#define MAX_LINE (2 * 1024 * 1024) /* 500 names of 255 characters, each up to 12 bytes in JSON */
#define MAX_COMMAS 2000000 /* each stands for up to 80 bytes of memory in cJSON */
#define MAX_INTEGER 9007199254740991.0 /* of a double */
#define MAX_USERS_IN_BATCH 500
#define STREAM_SILENCE 3.0   /* authsvc sends a line each second */
#define RETRY_SECONDS 0.25
#define MAX_PAUSE 30.0
#define RETRY_FALLBACK_SECONDS 5.0
#define PROXY_SECONDS 30.0 /* for so long a 404 may come from a proxy before a service that is away */
#define REFETCH_AGAIN_SECONDS 0.05
#define REPORT_SECONDS 0.2
#define STREAM_SECONDS 1.0 /* a stream that worked is begun again no sooner than this after it began */
#define STILL_HERE_SECONDS 5.0

struct buffer {
	char *bytes;
	size_t size, room;
};

/* A user that the background thread has to fetch. */
struct wanted {
	char *username;
	long long version;
	double not_before;
	bool in_flight;
	UT_hash_handle hh;
};

static const struct settings *settings;
static char boot[33];
static struct curl_slist *headers;

/* Of the broker's thread. */
static CURL *asking;
static double ask_pause;

/* Shared. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct service_message *messages, *last_message;
static struct wanted *wanted;
static atomic_bool message_waits, stopping;
static atomic_int state;
static _Atomic double heard_at, ask_again_at, fell_back_at; /* the last: when the protocol may be tried again */

/* Of the background thread. */
static pthread_t thread;
static bool thread_runs;
static CURLM *multi;
static CURL *stream, *post;
static struct buffer stream_line, post_answer;
static bool stream_open, stream_greeted, stream_has_policy, posting_report;
static int batch = MAX_USERS_IN_BATCH;
static double stream_at, stream_began_at, line_at, reported_at;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Messages to the broker's thread. */

static void send_message(struct service_message *message)
{
	if(!message) return;
	pthread_mutex_lock(&lock);
	if(last_message){
		last_message->next = message;
	}else{
		messages = message;
	}
	last_message = message;
	atomic_store(&message_waits, true);
	pthread_mutex_unlock(&lock);
}

static struct service_message *message_new(int kind)
{
	struct service_message *message = calloc(1, sizeof(*message));
	if(message) message->kind = kind;
	return message;
}

__attribute__((format(printf, 2, 3))) static void say(int level, const char *format, ...)
{
	struct service_message *message = message_new(MESSAGE_LOG);
	if(!message) return;
	va_list values;
	va_start(values, format);
	if(vasprintf(&message->text, format, values) < 0) message->text = NULL;
	va_end(values);
	message->level = level;
	send_message(message);
}

struct service_message *service_next_message(void)
{
	if(!atomic_load_explicit(&message_waits, memory_order_relaxed)) return NULL;
	pthread_mutex_lock(&lock);
	struct service_message *first = messages;
	if(first) messages = first->next;
	if(!messages){
		last_message = NULL;
		atomic_store(&message_waits, false);
	}
	pthread_mutex_unlock(&lock);
	return first;
}

static void free_names(char **names)
{
	for(char **each = names; each && *each; each++) free(*each);
	free(names);
}

void service_message_free(struct service_message *message)
{
	user_free(message->user);
	free_names(message->usernames);
	free_names(message->roles);
	free(message->text);
	free(message);
}

/* The state. */

enum service_state service_state(void)
{
	return atomic_load_explicit(&state, memory_order_relaxed);
}

double service_silence(void)
{
	return now() - atomic_load_explicit(&heard_at, memory_order_relaxed);
}

static void heard(void)
{
	atomic_store_explicit(&heard_at, now(), memory_order_relaxed);
}

static void change_state(enum service_state to, const char *why)
{
	enum service_state from = atomic_exchange(&state, to);
	if(from == to) return;
	if(to == SERVICE_UP) say(LEVEL_INFO, "authsvc: connected to %s", settings->url);
	if(to == SERVICE_DOWN) say(LEVEL_WARNING, "authsvc: %s does not answer: %s", settings->url, why);
	if(to == SERVICE_FALLBACK){
		atomic_store(&fell_back_at, now() + RETRY_FALLBACK_SECONDS);
		say(LEVEL_WARNING, "authsvc: %s does not speak this plugin's protocol (%s). It is asked about each access, as "
				"go-auth does. Install the same version of both, and use the address of AUTHSVC_BROKER_BIND.",
				settings->url, why);
	}
}

/* HTTP. */

static size_t append(char *bytes, size_t size, size_t count, void *to)
{
	struct buffer *buffer = to;
	size_t length = size * count;
	if(length > MAX_ANSWER || buffer->size + length > MAX_ANSWER) return 0; /* curl ends the transfer */
	if(buffer->size + length + 1 > buffer->room){
		size_t room = 2 * (buffer->size + length + 1);
		char *larger = realloc(buffer->bytes, room);
		if(!larger) return 0;
		buffer->bytes = larger;
		buffer->room = room;
	}
	memcpy(buffer->bytes + buffer->size, bytes, length);
	buffer->size += length;
	buffer->bytes[buffer->size] = '\0';
	return length;
}

static void buffer_free(struct buffer *buffer)
{
	free(buffer->bytes);
	memset(buffer, 0, sizeof(*buffer));
}

static CURL *request_new(void)
{
	CURL *request = curl_easy_init();
	if(!request) return NULL;
	curl_easy_setopt(request, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(request, CURLOPT_QUICK_EXIT, 1L); /* do not wait for a resolver that hangs */
#endif
	curl_easy_setopt(request, CURLOPT_PROXY, "");
	curl_easy_setopt(request, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(request, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(request, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(request, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(request, CURLOPT_WRITEFUNCTION, append);
	if(settings->ca_file) curl_easy_setopt(request, CURLOPT_CAINFO, settings->ca_file);
	if(settings->secret){
		curl_easy_setopt(request, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(request, CURLOPT_USERNAME, "broker");
		curl_easy_setopt(request, CURLOPT_PASSWORD, settings->secret);
	}
	return request;
}

static void set_url(CURL *request, const char *path)
{
	char *url = NULL;
	if(asprintf(&url, "%s%s", settings->url, path) < 0) return;
	curl_easy_setopt(request, CURLOPT_URL, url); /* curl copies it */
	free(url);
}

static cJSON *parsed(const struct buffer *buffer)
{
	size_t commas = 0;
	for(size_t i = 0; i < buffer->size; i++) commas += buffer->bytes[i] == ',';
	return buffer->size && commas <= MAX_COMMAS ? cJSON_ParseWithLength(buffer->bytes, buffer->size) : NULL;
}

/* Returns a number that is an integer of at least 0, otherwise 0. */
static long long integer_of(const cJSON *number)
{
	return cJSON_IsNumber(number) && number->valuedouble >= 0 && number->valuedouble <= MAX_INTEGER
			? (long long)number->valuedouble : 0;
}

/* While authsvc sends its heartbeat but answers no question in time, the broker waits for it ever more rarely. */
static void pause_asking(bool timed_out)
{
	ask_pause = !timed_out ? 0 : ask_pause ? 2 * ask_pause : 1;
	if(ask_pause > MAX_PAUSE) ask_pause = MAX_PAUSE;
	atomic_store(&ask_again_at, timed_out ? now() + ask_pause : 0);
}

/* Posts `body`, which it frees, in the broker's thread. Returns the status, or 0 without an answer. */
static long ask(const char *path, cJSON *body, cJSON **answer)
{
	struct buffer received = {0};
	long status = 0;
	char *text = body ? cJSON_PrintUnformatted(body) : NULL;
	cJSON_Delete(body);
	*answer = NULL;
	if(!text || !asking || service_state() == SERVICE_DOWN || now() < atomic_load(&ask_again_at)){
		free(text);
		return 0;
	}
	set_url(asking, path);
	curl_easy_setopt(asking, CURLOPT_TIMEOUT_MS, ANSWER_MS);
	curl_easy_setopt(asking, CURLOPT_POSTFIELDS, text);
	curl_easy_setopt(asking, CURLOPT_POSTFIELDSIZE, (long)strlen(text));
	curl_easy_setopt(asking, CURLOPT_WRITEDATA, &received);
	CURLcode failed = curl_easy_perform(asking);
	pause_asking(failed == CURLE_OPERATION_TIMEDOUT);
	if(failed){
		/* The next logins do not wait. The background thread notices when the service is back. */
		change_state(SERVICE_DOWN, curl_easy_strerror(failed));
	}else{
		curl_easy_getinfo(asking, CURLINFO_RESPONSE_CODE, &status);
		*answer = parsed(&received);
	}
	buffer_free(&received);
	OPENSSL_cleanse(text, strlen(text)); /* it may hold a password */
	free(text);
	return status;
}

static const char *string_of(const cJSON *object, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static cJSON *question(const char *username, const char *client_id)
{
	cJSON *body = cJSON_CreateObject();
	cJSON_AddStringToObject(body, "username", username);
	cJSON_AddStringToObject(body, "clientid", client_id ? client_id : "");
	return body;
}

static enum service_answer answer_of(long status, const cJSON *answer)
{
	if(status == 200 && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer, "ok"))) return SERVICE_YES;
	return status >= 400 && status < 500 ? SERVICE_NO : SERVICE_NONE;
}

enum service_answer service_login(const char *username, const char *password, const char *client_id,
		const char *address, struct service_login *login)
{
	memset(login, 0, sizeof(*login));
	cJSON *body = question(username, client_id), *answer;
	cJSON_AddStringToObject(body, "password", password);
	if(address) cJSON_AddStringToObject(body, "address", address);
	long status = ask("/auth/user", body, &answer);
	enum service_answer said = answer_of(status, answer);
	const char *reason = string_of(answer, "error"), *credential = string_of(answer, "credential");
	snprintf(login->reason, sizeof(login->reason), "%s", reason ? reason : "");
	const cJSON *user = cJSON_GetObjectItemCaseSensitive(answer, "user");
	if(said == SERVICE_YES && (credential || user)){
		login->credential = credential ? strdup(credential) : NULL;
		login->user = user_parse(user);
		/* An answer that is half of what it should be is none. */
		if(!login->credential || !login->user || strcmp(login->user->username, username)) said = SERVICE_NONE;
	}
	if(said == SERVICE_YES && !user) change_state(SERVICE_FALLBACK, "its answer to a login has no rules");
	if(said != SERVICE_YES){
		free(login->credential);
		user_free(login->user);
		login->credential = NULL;
		login->user = NULL;
	}
	cJSON_Delete(answer);
	return said;
}

struct user *service_fetch(const char *username)
{
	const char *names[] = {username};
	cJSON *body = cJSON_CreateObject(), *answer;
	cJSON_AddItemToObject(body, "usernames", cJSON_CreateStringArray(names, 1));
	struct user *user = NULL;
	if(ask("/auth/plugin/users", body, &answer) == 200){
		user = user_parse(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(answer, "users"), 0));
		if(user && (strcmp(user->username, username) || user->version == 0)){
			user_free(user);
			user = NULL;
		}
	}
	cJSON_Delete(answer);
	return user;
}

enum service_answer service_ask_access(const char *username, const char *client_id, const char *topic, int access)
{
	cJSON *body = question(username, client_id), *answer;
	cJSON_AddStringToObject(body, "topic", topic);
	cJSON_AddNumberToObject(body, "acc", access);
	long status = ask("/auth/acl", body, &answer);
	enum service_answer said = answer_of(status, answer);
	cJSON_Delete(answer);
	return said;
}

/* What the broker's thread hands over. */

static void wake(void)
{
	if(multi) curl_multi_wakeup(multi);
}

static void want(const char *username, long long version, double not_before)
{
	struct wanted *one;
	pthread_mutex_lock(&lock);
	HASH_FIND_STR(wanted, username, one);
	if(!one && (one = calloc(1, sizeof(*one)))){
		if((one->username = strdup(username))){
			one->not_before = not_before;
			HASH_ADD_KEYPTR(hh, wanted, one->username, strlen(one->username), one);
		}else{
			free(one);
			one = NULL;
		}
	}
	if(one){
		one->version = version; /* a restored database can have a smaller one */
		one->in_flight = false; /* what is on its way may be too old */
	}
	pthread_mutex_unlock(&lock);
}

void service_refetch(const char *username, long long version)
{
	want(username, version, 0);
	wake();
}

void service_report_connected(long long number, const char *username, const char *client_id, const char *address,
		const char *protocol, char credential)
{
	reports_connected(number, username, client_id, address, protocol, credential);
}

void service_report_disconnected(long long number)
{
	reports_disconnected(number);
}

void service_report_login(const char *username, const char *client_id)
{
	reports_login(username, client_id);
}

void service_report_denial(const char *username, const char *client_id, const char *topic, int access,
		const char *reason)
{
	reports_denial(username, client_id, topic, access, reason);
}

/* The background thread: users that are fetched again. */

static char *next_users(void)
{
	double time = now();
	cJSON *body = cJSON_CreateObject(), *names = cJSON_AddArrayToObject(body, "usernames");
	struct wanted *each, *next;
	int count = 0;
	pthread_mutex_lock(&lock);
	HASH_ITER(hh, wanted, each, next){
		if(count == batch) break;
		if(each->not_before > time) continue;
		cJSON_AddItemToArray(names, cJSON_CreateString(each->username));
		each->in_flight = true;
		count++;
	}
	pthread_mutex_unlock(&lock);
	char *text = count ? cJSON_PrintUnformatted(body) : NULL;
	cJSON_Delete(body);
	return text;
}

static void forget_wanted(struct wanted *one)
{
	HASH_DEL(wanted, one);
	free(one->username);
	free(one);
}

/* Passes on a user that was asked for, and forgets that it is wanted unless its version is too old. */
static void deliver(struct user *user)
{
	struct wanted *one;
	struct service_message *message = message_new(MESSAGE_USER);
	pthread_mutex_lock(&lock);
	HASH_FIND_STR(wanted, user->username, one);
	bool was_wanted = one != NULL;
	if(one && one->in_flight){
		if((long long)user->version >= one->version && user->version){
			forget_wanted(one);
		}else{
			one->not_before = now() + REFETCH_AGAIN_SECONDS;
		}
	}
	pthread_mutex_unlock(&lock);
	if(message && was_wanted && user->version){
		message->user = user;
		send_message(message);
	}else{
		user_free(user);
		free(message);
	}
}

static void users_arrived(long status)
{
	cJSON *answer = status == 200 ? parsed(&post_answer) : NULL, *each;
	bool any = false;
	cJSON_ArrayForEach(each, cJSON_GetObjectItemCaseSensitive(answer, "users")){
		struct user *user = user_parse(each);
		if(!user) continue;
		any = true;
		deliver(user);
	}
	/* An answer that is too large to be read is asked for in parts. */
	if(status == 200 && !answer){
		if(batch == 1) say(LEVEL_WARNING, "authsvc: the rules of a user are too many or cannot be read; the old ones stay");
		batch = batch > 1 ? batch / 2 : 1;
	}else if(any && batch < MAX_USERS_IN_BATCH){
		batch *= 2;
	}
	cJSON_Delete(answer);
	struct wanted *one, *next;
	pthread_mutex_lock(&lock);
	HASH_ITER(hh, wanted, one, next){
		/* Without a usable answer about a user it is asked for again, but not at once. */
		if(one->in_flight){
			one->in_flight = false;
			if(one->not_before < now()) one->not_before = now() + (any ? REFETCH_AGAIN_SECONDS : RETRY_SECONDS);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* The background thread: one request at a time, for users or with a report. */

static void post_begin(const char *path, char *body, bool is_report)
{
	set_url(post, path);
	post_answer.size = 0;
	posting_report = is_report;
	curl_easy_setopt(post, CURLOPT_COPYPOSTFIELDS, body);
	curl_easy_setopt(post, CURLOPT_PRIVATE, "busy");
	curl_multi_add_handle(multi, post);
	free(body);
}

static bool post_is_busy(void)
{
	char *busy = NULL;
	curl_easy_getinfo(post, CURLINFO_PRIVATE, &busy);
	return busy != NULL;
}

static void post_end(CURLcode failed)
{
	long status = 0;
	if(!failed) curl_easy_getinfo(post, CURLINFO_RESPONSE_CODE, &status);
	curl_multi_remove_handle(multi, post);
	curl_easy_setopt(post, CURLOPT_PRIVATE, NULL);
	if(!posting_report){
		users_arrived(status);
		return;
	}
	cJSON *answer = parsed(&post_answer);
	bool stored = status == 200 && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer, "ok"));
	cJSON_Delete(answer);
	if(status == 400){
		say(LEVEL_WARNING, "authsvc: a report was refused and is dropped");
		stored = true; /* it would be refused again */
	}
	reports_sent(stored);
	reported_at = now() + (stored ? 0 : RETRY_SECONDS);
}

/* The background thread: the stream of changes. */

static char **names_of(const cJSON *list)
{
	int count = cJSON_GetArraySize(list);
	char **names = calloc((size_t)count + 1, sizeof(*names));
	int kept = 0;
	const cJSON *each;
	cJSON_ArrayForEach(each, list){
		if(names && cJSON_IsString(each) && (names[kept] = strdup(each->valuestring))) kept++;
	}
	return names;
}

static void send_numbers(const cJSON *list)
{
	const cJSON *each;
	cJSON_ArrayForEach(each, list){
		struct service_message *message = message_new(MESSAGE_DISCONNECT);
		if(message) message->number = integer_of(each);
		send_message(message);
	}
}

/* Handles one line; returns false if it is not one of authsvc's. */
static bool line_arrived(const char *text, size_t size)
{
	cJSON *line = cJSON_ParseWithLength(text, size);
	bool is_greeting = integer_of(cJSON_GetObjectItemCaseSensitive(line, "protocol")) == PROTOCOL;
	if(!cJSON_IsObject(line) || (!stream_greeted && !is_greeting)){
		cJSON_Delete(line);
		return false;
	}
	const cJSON *number = cJSON_GetObjectItemCaseSensitive(line, "version");
	long long version = integer_of(number);
	stream_greeted = true;
	line_at = now();
	if(number && !version && !stream_has_policy){
		/* The service has no policy yet: what is held stays in use, as while the service is away. */
		cJSON_Delete(line);
		return true;
	}
	const cJSON *users = cJSON_GetObjectItemCaseSensitive(line, "users");
	const cJSON *roles = cJSON_GetObjectItemCaseSensitive(line, "roles");
	struct service_message *message = NULL;
	if(!stream_has_policy || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(line, "all"))){
		message = message_new(MESSAGE_EVERYTHING);
	}else if(users || roles){
		message = message_new(MESSAGE_CHANGE);
		if(message){
			message->usernames = names_of(users);
			message->roles = names_of(roles);
		}
	}
	if(message) message->version = version;
	send_message(message);
	send_numbers(cJSON_GetObjectItemCaseSensitive(line, "disconnect"));
	cJSON_Delete(line);
	if(!stream_has_policy){
		stream_has_policy = true;
		atomic_store(&ask_again_at, 0);
		reports_sent(false); /* after a gap everything is reported again */
		change_state(SERVICE_UP, "");
	}else if(service_state() == SERVICE_DOWN || (service_state() == SERVICE_FALLBACK && now() > fell_back_at)){
		change_state(SERVICE_UP, ""); /* one answer took too long or had no rules, but the service is there */
	}
	heard();
	return true;
}

static size_t stream_arrived(char *bytes, size_t size, size_t count, void *unused)
{
	(void)unused;
	size_t length = append(bytes, size, count, &stream_line);
	if(length != size * count || stream_line.size > MAX_LINE) return 0;
	long status = 0;
	curl_easy_getinfo(stream, CURLINFO_RESPONSE_CODE, &status);
	if(status != 200) return length;
	char *begin = stream_line.bytes, *end;
	size_t left = stream_line.size;
	while((end = memchr(begin, '\n', left))){
		if(!line_arrived(begin, (size_t)(end - begin))) return 0;
		left -= (size_t)(end + 1 - begin);
		begin = end + 1;
	}
	memmove(stream_line.bytes, begin, left);
	stream_line.size = left;
	return length;
}

static void stream_begin(void)
{
	char *name = curl_easy_escape(stream, settings->name, 0), *path = NULL;
	if(asprintf(&path, "/auth/plugin/changes?boot=%s&name=%s", boot, name ? name : "") > 0) set_url(stream, path);
	free(path);
	curl_free(name);
	stream_line.size = 0;
	line_at = stream_began_at = now();
	stream_open = curl_multi_add_handle(multi, stream) == CURLM_OK;
}

/* A stream that worked is begun again at once: the process behind it may just have been replaced. A request that is
 * under way may have gone to the same process, so it is not waited for. */
static void stream_end(const char *why, long status)
{
	bool worked = stream_greeted, is_unknown = status == 404 || status == 405;
	curl_multi_remove_handle(multi, stream);
	stream_open = stream_greeted = stream_has_policy = false;
	stream_at = now() + RETRY_SECONDS;
	if(post_is_busy()) post_end(CURLE_ABORTED_BY_CALLBACK);
	if(worked){
		stream_at = stream_began_at + STREAM_SECONDS;
	}else if(status == 401){
		change_state(SERVICE_DOWN, "the webhook secret is wrong");
	}else if(is_unknown && service_silence() > PROXY_SECONDS){
		change_state(SERVICE_FALLBACK, "it has no stream of changes");
		stream_at = now() + RETRY_FALLBACK_SECONDS;
	}else{
		change_state(SERVICE_DOWN, why);
	}
}

/* The background thread itself. */

static void begin_what_is_due(void)
{
	double time = now();
	if(!stream_open && time >= stream_at) stream_begin();
	if(stream_open && time - line_at > STREAM_SILENCE) stream_end("it is silent", 0);
	if(service_state() != SERVICE_UP || post_is_busy()) return;
	char *users = next_users();
	if(users){
		post_begin("/auth/plugin/users", users, false);
	}else if(time - reported_at > (reports_pending() ? REPORT_SECONDS : STILL_HERE_SECONDS)){
		char *report = reports_next();
		reported_at = time;
		if(report) post_begin("/auth/plugin/report", report, true);
	}
}

static void *run(void *unused)
{
	(void)unused;
	while(!atomic_load(&stopping)){
		int count;
		CURLMsg *done;
		begin_what_is_due();
		curl_multi_perform(multi, &count);
		while((done = curl_multi_info_read(multi, &count))){
			CURLcode result = done->data.result;
			if(done->easy_handle == post){
				post_end(result);
			}else{
				long status = 0;
				curl_easy_getinfo(stream, CURLINFO_RESPONSE_CODE, &status);
				char why[64];
				snprintf(why, sizeof(why), "it answers with status %ld", status);
				stream_end(result ? curl_easy_strerror(result) : why, result ? 0 : status);
			}
		}
		curl_multi_poll(multi, NULL, 0, 50, NULL);
	}
	return NULL;
}

static bool thread_begin(void)
{
	sigset_t all, before;
	sigfillset(&all); /* SIGHUP, SIGTERM and the others are the broker's */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	thread_runs = pthread_create(&thread, NULL, run, NULL) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return thread_runs;
}

bool service_start(const struct settings *settings_)
{
	unsigned char random[sizeof(boot) / 2];
	settings = settings_;
	if(RAND_bytes(random, sizeof(random)) != 1) return false;
	for(size_t i = 0; i < sizeof(random); i++) snprintf(boot + 2 * i, 3, "%02x", random[i]);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	headers = curl_slist_append(NULL, "Content-Type: application/json");
	headers = curl_slist_append(headers, "Authsvc-Plugin: 1");
	headers = curl_slist_append(headers, "Expect:");
	atomic_store(&state, SERVICE_STARTING);
	atomic_store(&heard_at, -1e9);
	stream_has_policy = false;
	batch = MAX_USERS_IN_BATCH;
	atomic_store(&ask_again_at, 0);
	ask_pause = 0;
	atomic_store(&stopping, false);
	stream_at = reported_at = 0;
	multi = curl_multi_init();
	asking = request_new();
	stream = request_new();
	post = request_new();
	if(!multi || !asking || !stream || !post) return false;
	curl_easy_setopt(stream, CURLOPT_WRITEFUNCTION, stream_arrived);
	curl_easy_setopt(post, CURLOPT_WRITEDATA, &post_answer);
	curl_easy_setopt(post, CURLOPT_TIMEOUT_MS, BATCH_MS);
	reports_begin(boot, settings->name);
	return thread_begin();
}

void service_stop(void)
{
	atomic_store(&stopping, true);
	if(thread_runs){
		wake();
		pthread_join(thread, NULL);
		thread_runs = false;
	}
	if(stream && stream_open) curl_multi_remove_handle(multi, stream);
	if(post && post_is_busy()) curl_multi_remove_handle(multi, post);
	stream_open = false;
	CURL **all[] = {&asking, &stream, &post};
	for(size_t i = 0; i < sizeof(all) / sizeof(*all); i++){
		if(*all[i]) curl_easy_cleanup(*all[i]);
		*all[i] = NULL;
	}
	if(multi) curl_multi_cleanup(multi);
	multi = NULL;
	curl_slist_free_all(headers);
	headers = NULL;
	buffer_free(&stream_line);
	buffer_free(&post_answer);
	struct wanted *each, *next;
	HASH_ITER(hh, wanted, each, next) forget_wanted(each);
	struct service_message *message;
	while((message = service_next_message())) service_message_free(message);
	reports_end();
	curl_global_cleanup();
}
