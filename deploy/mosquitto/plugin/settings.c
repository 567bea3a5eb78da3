#include "settings.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OFFLINE_SECONDS 300
#define MAX_OFFLINE_SECONDS (7 * 24 * 3600)
#define MAX_SECRET 1024

void settings_begin(struct settings *settings)
{
	memset(settings, 0, sizeof(*settings));
	settings->offline_seconds = OFFLINE_SECONDS;
	if(gethostname(settings->name, sizeof(settings->name) - 1) || !settings->name[0]){
		strcpy(settings->name, "broker");
	}
}

static bool fail(char *error, const char *option, const char *why)
{
	snprintf(error, SETTINGS_ERROR_SIZE, "authsvc: plugin_opt_%s %s", option, why);
	return false;
}

static bool set_text(char **field, const char *value)
{
	free(*field);
	*field = strdup(value);
	return *field != NULL;
}

static bool set_url(struct settings *settings, const char *value, char *error)
{
	if(strncmp(value, "http://", 7) && strncmp(value, "https://", 8)){
		return fail(error, "url", "must begin with http:// or https://");
	}
	if(strchr(value, '@')) return fail(error, "url", "must not contain a password; use plugin_opt_secret_file");
	if(strpbrk(strstr(value, "://") + 3, "?# ")) return fail(error, "url", "must not contain ?, # or a space");
	if(!strstr(value, "://")[3] || strstr(value, "://")[3] == '/') return fail(error, "url", "names no host");
	set_text(&settings->url, value);
	size_t length = strlen(settings->url);
	while(length && settings->url[length - 1] == '/') settings->url[--length] = '\0';
	return true;
}

static FILE *open_file(const char *option, const char *path, char *error)
{
	char why[SETTINGS_ERROR_SIZE / 2];
	FILE *file = fopen(path, "re");
	if(!file){
		snprintf(why, sizeof(why), "cannot be read: %.100s: %s", path, strerror(errno));
		fail(error, option, why);
	}
	return file;
}

static bool set_ca_file(struct settings *settings, const char *path, char *error)
{
	FILE *file = open_file("ca_file", path, error);
	if(!file) return false;
	fclose(file);
	return set_text(&settings->ca_file, path) || fail(error, "ca_file", "needs more memory");
}

static bool set_secret(struct settings *settings, const char *path, char *error)
{
	char secret[MAX_SECRET + 2] = "";
	FILE *file = open_file("secret_file", path, error);
	if(!file) return false;
	size_t length = fread(secret, 1, MAX_SECRET + 1, file);
	fclose(file);
	if(length > MAX_SECRET){
		OPENSSL_cleanse(secret, sizeof(secret));
		return fail(error, "secret_file", "names a file of more than 1024 bytes");
	}
	secret[length] = '\0';
	secret[strcspn(secret, "\r\n")] = '\0';
	bool any = secret[0] && set_text(&settings->secret, secret);
	OPENSSL_cleanse(secret, sizeof(secret));
	return any || fail(error, "secret_file", "names an empty file");
}

static bool set_seconds(struct settings *settings, const char *value, char *error)
{
	char *end;
	errno = 0;
	long seconds = strtol(value, &end, 10);
	if(errno || end == value || *end || seconds < 0 || seconds > MAX_OFFLINE_SECONDS){
		return fail(error, "offline_seconds", "must be a number of seconds from 0 to 604800");
	}
	settings->offline_seconds = seconds;
	return true;
}

bool settings_set(struct settings *settings, const char *option, const char *value, char error[SETTINGS_ERROR_SIZE])
{
	if(!strcmp(option, "url")) return set_url(settings, value, error);
	if(!strcmp(option, "secret_file")) return set_secret(settings, value, error);
	if(!strcmp(option, "ca_file")) return set_ca_file(settings, value, error);
	if(!strcmp(option, "offline_seconds")) return set_seconds(settings, value, error);
	if(!strcmp(option, "name")){
		if(!*value || strlen(value) >= SETTINGS_NAME_SIZE) return fail(error, "name", "must have 1 to 64 bytes");
		strcpy(settings->name, value);
		return true;
	}
	snprintf(error, SETTINGS_ERROR_SIZE, "authsvc: plugin_opt_%.100s is not known; there are url, secret_file, ca_file, "
			"offline_seconds and name", option);
	return false;
}

bool settings_complete(const struct settings *settings, char error[SETTINGS_ERROR_SIZE])
{
	return settings->url || fail(error, "url", "is missing: the address of authsvc's broker listener, as in "
			"plugin_opt_url http://127.0.0.1:8070");
}

/* Returns the argument of -c of this process in `path`. */
static bool configuration_file(char *path, size_t size)
{
	char arguments[4096];
	FILE *file = fopen("/proc/self/cmdline", "re");
	if(!file) return false;
	size_t length = fread(arguments, 1, sizeof(arguments) - 1, file);
	fclose(file);
	arguments[length] = '\0';
	for(char *each = arguments; each < arguments + length; each += strlen(each) + 1){
		char *next = each + strlen(each) + 1;
		if((!strcmp(each, "-c") || !strcmp(each, "--config-file")) && next < arguments + length){
			return snprintf(path, size, "%s", next) < (int)size;
		}
	}
	return false;
}

bool settings_per_listener(void)
{
	char path[4096], line[1024], value[16];
	bool found = false;
	FILE *file = configuration_file(path, sizeof(path)) ? fopen(path, "re") : NULL;
	while(file && fgets(line, sizeof(line), file)){
		if(sscanf(line, " per_listener_settings %15s", value) == 1) found = !strcmp(value, "true");
	}
	if(file) fclose(file);
	return found;
}

void settings_end(struct settings *settings)
{
	free(settings->url);
	if(settings->secret) OPENSSL_cleanse(settings->secret, strlen(settings->secret));
	free(settings->secret);
	free(settings->ca_file);
	memset(settings, 0, sizeof(*settings));
}
