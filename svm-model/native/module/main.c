// SPDX-License-Identifier: GPL-2.0
/*
 * sevsim_flush: executes WBINVD and WBNOINVD on chosen pCPUs and says how long each took, and runs cache-flush policies
 * for real VMs. A calibration aid for a machine of one's own: it stops pCPUs for milliseconds.
 *
 * It needs CAP_SYS_RAWIO, checks every argument, and refuses what may hold a pCPU longer than the parameter stall_limit_us
 * says. Requests, reclaims, and pCPUs that are asked one after the other begin one pause apart: pause_us, or as long as the last
 * one took. Within a reclaim a policy does as it likes, up to four write-backs a pCPU, and no more by all that are under way than
 * stall_limit_us allows.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

static unsigned int stall_limit_us = 50000;
module_param(stall_limit_us, uint, 0444);
MODULE_PARM_DESC(stall_limit_us, "refuse what may keep a pCPU from all else for longer (default 50000)");

static unsigned int pause_us = 1000;
module_param(pause_us, uint, 0444);
MODULE_PARM_DESC(pause_us, "shortest pause between two write-backs (default 1000)");

/* When the next write-back may begin, in ns of the monotonic clock. */
static DEFINE_SPINLOCK(turn_lock);
static u64 next_turn;

/* What an open file has: the policy that it runs. */
struct opened {
	struct mutex lock;
	struct sevsim_session *session;
};

u64 sevsim_stall_limit_us(void)
{
	return stall_limit_us;
}

/*
 * Waits until enough time has passed since the last write-back, and takes the turn: whoever else waits goes on waiting for the
 * shortest pause at least, and for longer if sevsim_turn_over() says so.
 */
int sevsim_take_turn(void)
{
	for (;;) {
		u64 now = ktime_get_ns();
		ktime_t when;
		bool mine;

		spin_lock(&turn_lock);
		mine = now >= next_turn;
		when = ns_to_ktime(next_turn);
		if (mine)
			next_turn = now + (u64)pause_us * NSEC_PER_USEC;
		spin_unlock(&turn_lock);
		if (mine)
			return 0;
		set_current_state(TASK_INTERRUPTIBLE);
		schedule_hrtimeout(&when, HRTIMER_MODE_ABS);
		if (signal_pending(current))
			return -EINTR;
	}
}

void sevsim_turn_over(u64 cycles)
{
	u64 pause = max_t(u64, pause_us, sevsim_us(cycles)) * NSEC_PER_USEC;

	spin_lock(&turn_lock);
	next_turn = max(next_turn, ktime_get_ns() + pause);
	spin_unlock(&turn_lock);
}

static long info(struct sevsim_info __user *to)
{
	struct sevsim_info info = {
		.size = sizeof(info),
		.abi = SEVSIM_ABI,
		.nr_cpu_ids = nr_cpu_ids,
		.has_wbnoinvd = sevsim_has_wbnoinvd(),
		.sme_coherent = sevsim_sme_coherent(),
		.policies = sevsim_nr_policies,
		.kvm_entry = sevsim_kvm_entry_found(),
		.in_session = sevsim_in_session(),
		.stall_us = sevsim_stall_us(),
		.stall_seen_us = sevsim_stall_seen_us(),
		.stall_limit_us = stall_limit_us,
		.flushes = sevsim_flushes(),
	};
	u32 size;

	if (get_user(size, &to->size))
		return -EFAULT;
	if (size != sizeof(info))
		return -EINVAL;
	return copy_to_user(to, &info, sizeof(info)) ? -EFAULT : 0;
}

static long policy_text(struct sevsim_policy_text __user *to)
{
	struct sevsim_policy_text ask;
	const struct sevsim_policy *policy;

	if (copy_from_user(&ask, to, sizeof(ask)))
		return -EFAULT;
	if (ask.size != sizeof(ask) || ask.index >= sevsim_nr_policies)
		return -EINVAL;
	policy = sevsim_policies[ask.index];
	strscpy(ask.name, policy->name, sizeof(ask.name));
	ask.text_len = policy->text_len;
	if (copy_to_user(u64_to_user_ptr(ask.text), policy->text, min_t(size_t, ask.text_max, policy->text_len)))
		return -EFAULT;
	return copy_to_user(to, &ask, sizeof(ask)) ? -EFAULT : 0;
}

static long start(struct opened *opened, const void __user *from)
{
	struct sevsim_start start;
	u32 *llc;
	long ret;

	if (copy_from_user(&start, from, sizeof(start)))
		return -EFAULT;
	if (start.size != sizeof(start) || start.policy >= sevsim_nr_policies || !start.vms ||
	    start.vms > SEVSIM_VMS || start.llc_len > SEVSIM_MASK_WORDS * 64)
		return -EINVAL;
	llc = memdup_user(u64_to_user_ptr(start.llc), start.llc_len * sizeof(*llc));
	if (IS_ERR(llc))
		return PTR_ERR(llc);
	mutex_lock(&opened->lock);
	ret = opened->session ? -EBUSY : sevsim_session_start(&start, llc, &opened->session);
	mutex_unlock(&opened->lock);
	kfree(llc);
	return ret;
}

static long bind(struct opened *opened, const void __user *from)
{
	struct sevsim_bind bind;
	long ret;

	if (copy_from_user(&bind, from, sizeof(bind)))
		return -EFAULT;
	if (bind.size != sizeof(bind) || bind.pad)
		return -EINVAL;
	mutex_lock(&opened->lock);
	ret = opened->session ? sevsim_session_bind(opened->session, &bind) : -ENOENT;
	mutex_unlock(&opened->lock);
	return ret;
}

static long unbind(struct opened *opened)
{
	long ret;

	mutex_lock(&opened->lock);
	ret = opened->session ? sevsim_session_unbind(opened->session) : -ENOENT;
	mutex_unlock(&opened->lock);
	return ret;
}

static long sevsim_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct opened *opened = file->private_data;
	void __user *user = (void __user *)arg;
	struct sevsim_session *session;

	/* Asked at each call: a file can be handed on. */
	if (!capable(CAP_SYS_RAWIO))
		return -EPERM;
	switch (cmd) {
	case SEVSIM_INFO:
		return info(user);
	case SEVSIM_FLUSH:
		mutex_lock(&opened->lock);
		session = opened->session;
		mutex_unlock(&opened->lock);
		return sevsim_flush(session, user);
	case SEVSIM_POLICY:
		return policy_text(user);
	case SEVSIM_START:
		return start(opened, user);
	case SEVSIM_BIND:
		return bind(opened, user);
	case SEVSIM_UNBIND:
		return unbind(opened);
	case SEVSIM_RECLAIM:
		/* Flushers may meet: the lock is not held. A session lives until its file is closed. */
		mutex_lock(&opened->lock);
		session = opened->session;
		mutex_unlock(&opened->lock);
		return session ? sevsim_session_reclaim(session, user) : -ENOENT;
	}
	return -ENOTTY;
}

static int sevsim_open(struct inode *inode, struct file *file)
{
	struct opened *opened;

	if (!capable(CAP_SYS_RAWIO))
		return -EPERM;
	opened = kzalloc(sizeof(*opened), GFP_KERNEL);
	if (!opened)
		return -ENOMEM;
	mutex_init(&opened->lock);
	file->private_data = opened;
	return 0;
}

static int sevsim_release(struct inode *inode, struct file *file)
{
	struct opened *opened = file->private_data;

	if (opened->session)
		sevsim_session_end(opened->session);
	kfree(opened);
	return 0;
}

static const struct file_operations sevsim_fops = {
	.owner = THIS_MODULE,
	.open = sevsim_open,
	.release = sevsim_release,
	.unlocked_ioctl = sevsim_ioctl,
};

static struct miscdevice sevsim_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "sevsim_flush",
	.fops = &sevsim_fops,
	.mode = 0600,
};

static int __init sevsim_init(void)
{
	int ret = sevsim_cpu_init();

	if (ret)
		return ret;
	ret = misc_register(&sevsim_device);
	if (ret)
		sevsim_cpu_exit();
	return ret;
}

static void __exit sevsim_exit(void)
{
	misc_deregister(&sevsim_device);
	sevsim_cpu_exit();
}

module_init(sevsim_init);
module_exit(sevsim_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Times WBINVD and WBNOINVD on chosen CPUs and runs cache-flush policies, for sevsim");
