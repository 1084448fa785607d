/* Includes point one way (see the Makefile's LIB_DIRS): each folder may include itself and what lies
 * below it. A command's folder may include base only, but for those that measure or build what they
 * include. This reads the sources themselves, so that a wrong include fails even where it compiles. */
#include <criterion/criterion.h>
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rule {
    const char *folder;
    const char *may_include; /* folders, each between spaces */
    const char *one_file;    /* may be included, too; NULL: none */
};

/* The first rule whose folder a file lies in counts. */
static const struct rule rules[] = {
    {"base", " base ", NULL},
    {"vmm", " base vmm ", NULL},
    {"net", " base net ", NULL},
    {"templates", " base templates ", NULL},
    {"factory", " base vmm net templates factory ", NULL},
    {"pool", " base vmm net templates factory pool ", NULL},
    /* The command knows the API, through its library's public header, and base only. */
    {"tools/vmfactory", " base ", "tools/client/vmfactory-client.h"},
    {"tools/client", " base ", NULL},
};
/* Folders of our own: an include of anything else is of the system. */
static const char *const ours[] = {"base", "vmm",   "net",   "templates", "factory",
                                   "pool", "tools", "tests", NULL};

static size_t files_seen, includes_seen;

static bool may_include(const struct rule *rule, const char *folder)
{
    char word[64];

    snprintf(word, sizeof(word), " %s ", folder);
    return strstr(rule->may_include, word) != NULL;
}

/* What line includes, with "" or <>, into name; false if it includes nothing. */
static bool included(const char *line, char *name, size_t size)
{
    const char *end;

    while (isspace((unsigned char)*line))
        line++;
    if (*line++ != '#')
        return false;
    while (isspace((unsigned char)*line))
        line++;
    if (strncmp(line, "include", 7) != 0)
        return false;
    line += 7;
    while (isspace((unsigned char)*line))
        line++;
    if (*line != '"' && *line != '<')
        return false;
    end = strpbrk(line + 1, "\">");
    if (end == NULL || (size_t)(end - line) > size)
        return false;
    snprintf(name, size, "%.*s", (int)(end - line - 1), line + 1);
    return true;
}

/* Why a file under rule may not include name, or NULL. */
static const char *objection(const struct rule *rule, const char *name)
{
    char folder[40];
    const char *slash = strchr(name, '/');

    if (strstr(name, "../") != NULL)
        return "an include starts at the root of the tree";
    if (rule->one_file != NULL && strcmp(name, rule->one_file) == 0)
        return NULL;
    if (slash == NULL)
        return NULL; /* the system's, or a neighbour's: it cannot lead out of the folder */
    snprintf(folder, sizeof(folder), "%.*s", (int)(slash - name), name);
    for (size_t i = 0; ours[i] != NULL; i++) {
        if (strcmp(folder, ours[i]) == 0 && !may_include(rule, folder)) {
            if (strncmp(name, rule->folder, strlen(rule->folder)) == 0 &&
                name[strlen(rule->folder)] == '/')
                return NULL; /* a tool's own folder has two levels */
            return "an include points upward or sideways";
        }
    }
    return NULL;
}

static void check_file(const struct rule *rule, const char *path)
{
    char line[1000], name[200];
    FILE *f = fopen(path, "re");
    int number = 0;

    cr_assert_not_null(f, "%s", path);
    files_seen++;
    while (fgets(line, sizeof(line), f) != NULL) {
        const char *why;

        number++;
        if (!included(line, name, sizeof(name)))
            continue;
        includes_seen++;
        why = objection(rule, name);
        cr_expect_null(why, "%s:%d: #include of %s: %s", path, number, name, why);
    }
    fclose(f);
}

static void check_folder(const struct rule *rule, const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;

    if (d == NULL)
        return; /* not built yet in this tree; that something was seen is checked at the end */
    while ((e = readdir(d)) != NULL) {
        const char *dot = strrchr(e->d_name, '.');
        char below[600];

        if (e->d_name[0] == '.')
            continue;
        snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
        if (e->d_type == DT_DIR)
            check_folder(rule, below);
        else if (dot != NULL && (strcmp(dot, ".c") == 0 || strcmp(dot, ".h") == 0))
            check_file(rule, below);
    }
    closedir(d);
}

/* The tree is where this file was compiled from: the path of the file if that is absolute, else the
 * directory the tests are started from. */
static void go_to_the_tree(void)
{
    char root[600] = __FILE__;
    char *tail = strstr(root, "/tests/unit/");

    if (root[0] == '/' && tail != NULL) {
        *tail = '\0';
        cr_assert_eq(chdir(root), 0, "%s", root);
    }
    cr_assert_eq(access("base/error.h", R_OK), 0, "run the tests from the root of the source tree");
}

Test(layers, includes_point_one_way)
{
    go_to_the_tree();
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        check_folder(&rules[i], rules[i].folder);
    cr_expect_gt(files_seen, 20);
    cr_expect_gt(includes_seen, 100);
}

Test(layers, the_check_itself_objects)
{
    char name[200];

    cr_expect(included("#include \"vmm/vmm.h\"\n", name, sizeof(name)));
    cr_expect_str_eq(name, "vmm/vmm.h");
    cr_expect(included("  #  include <pool/slot.h> /* */\n", name, sizeof(name)));
    cr_expect_str_eq(name, "pool/slot.h");
    cr_expect_not(included("// #include \"vmm/vmm.h\"\n", name, sizeof(name)));

    cr_expect_not_null(objection(&rules[0], "vmm/vmm.h"));
    cr_expect_not_null(objection(&rules[0], "../vmm/vmm.h"));
    cr_expect_not_null(objection(&rules[0], "tests/unit/scratch.h"));
    cr_expect_not_null(objection(&rules[1], "factory/build.h"));
    cr_expect_not_null(objection(&rules[3], "vmm/vmm.h"), "templates know no VMM");
    cr_expect_not_null(objection(&rules[4], "pool/slot.h"));
    cr_expect_not_null(objection(&rules[6], "factory/build.h"));
    cr_expect_not_null(objection(&rules[6], "tools/bench/stages.h"));
    cr_expect_not_null(objection(&rules[6], "tools/client/internal.h"));
    cr_expect_not_null(objection(&rules[6], "tools/vmfactoryd/main.h"));
    cr_expect_null(objection(&rules[6], "tools/client/vmfactory-client.h"));
    cr_expect_not_null(objection(&rules[7], "tools/vmfactory/cli.h"));
    cr_expect_null(objection(&rules[6], "tools/vmfactory/table.h"));
    cr_expect_null(objection(&rules[6], "base/error.h"));
    cr_expect_null(objection(&rules[4], "templates/spec.h"));
    cr_expect_null(objection(&rules[0], "sys/stat.h"));
    cr_expect_null(objection(&rules[0], "stdio.h"));
}
