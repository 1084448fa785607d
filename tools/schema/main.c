/* vmfactory-schema: prints the JSON Schema of specs, made from the table that decodes them.
 * `vmfactory-schema > templates/spec.schema.json` renews the committed copy. */
#include <stdio.h>
#include <stdlib.h>
#include "templates/spec.h"

int main(void)
{
    char *schema = vf_spec_schema();
    int failed;

    if (schema == NULL) {
        fputs("vmfactory-schema: no memory\n", stderr);
        return 1;
    }
    failed = fputs(schema, stdout) < 0 || fflush(stdout) != 0;
    free(schema);
    if (failed)
        perror("vmfactory-schema: write");
    return failed;
}
