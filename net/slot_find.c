/* Whose namespace it is. See slot.h.
 *
 * Happy path: none of ours is it. A namespace is known by its file's device and inode, whatever path or descriptor led to
 * it; of those that are ours the name is asked, which the record and the number's place in the pool vouch for: what is
 * only called alike is somebody else's.
 */
#include <stdio.h>
#include <sys/stat.h>
#include "net/slot_internal.h"

static uint64_t taken(struct vf_address_pool *p, int word)
{
    pthread_mutex_lock(&p->lock);
    uint64_t bits = p->taken[word];
    pthread_mutex_unlock(&p->lock);
    return bits;
}

static bool is_it(struct vf_nets *s, int number, const struct stat *ns, char name[VF_LINK_NAME])
{
    char path[160];
    struct stat st;
    vf_net_name(s, number, name);
    snprintf(path, sizeof(path), "%s/%s", s->netns_dir, name);
    return stat(path, &st) == 0 && st.st_dev == ns->st_dev && st.st_ino == ns->st_ino &&
           vf_net_record_exists(s, number);
}

bool vf_nets_have(struct vf_nets *s, int netns, char ret_name[VF_LINK_NAME])
{
    char name[VF_LINK_NAME];
    struct stat ns;
    if (fstat(netns, &ns) < 0)
        return false;
    for (int word = 0; word * 64 < s->pool.capacity; word++)
        for (uint64_t bits = taken(&s->pool, word); bits; bits &= bits - 1)
            if (is_it(s, word * 64 + __builtin_ctzll(bits), &ns, name)) {
                snprintf(ret_name, VF_LINK_NAME, "%s", name);
                return true;
            }
    return false;
}
