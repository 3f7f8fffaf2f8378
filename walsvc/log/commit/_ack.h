/* What the files of the extension _ack share: the Ack itself, and what each of them has for the others. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define OURS __attribute__((visibility("hidden")))  /* seen in all files of the extension, and nowhere else */

enum state { PENDING, DONE, FAILED, CANCELLED };

typedef struct {
    PyObject_HEAD
    PyObject *loop;
    PyObject *callback;  /* the first one; NULL: none */
    PyObject *context;   /* its context */
    PyObject *more;      /* list of (callback, context) added after it; NULL: none. Empty where `callback` is NULL */
    PyObject *result;    /* NULL while the numbers below stand for it */
    PyObject *exception;
    PyObject *traceback; /* the exception's, as it was given */
    PyObject *message;   /* of cancel */
    PyObject *weakrefs;
    uint64_t numbers[5]; /* of an AppendResult that nobody has asked for: lsn, segment, offset, length, sync_us */
    unsigned char state, blocking, unseen, durable; /* unseen: nobody has fetched the exception; durable: of the AppendResult */
} Ack;

/* Receives a callback of a finished Ack, with references to it and to its context. -1: an error is set. */
typedef int (*Taker)(void *taker, Ack *ack, PyObject *callback, PyObject *context);

/* _ack.c */
extern OURS PyTypeObject AckType;
OURS Ack *ack_new(PyObject *loop);
OURS PyObject *ack_result(Ack *ack, PyObject *ignored);
OURS void raise_instance(PyObject *exception);
extern OURS PyObject *invalid_state; /* asyncio.InvalidStateError */

/* _settling.c */
OURS PyObject *ack_cancel(Ack *ack, PyObject *args, PyObject *kwargs);
OURS PyObject *ack_set_result(Ack *ack, PyObject *value);
OURS PyObject *ack_set_exception(Ack *ack, PyObject *exception);

/* _awaiting.c */
OURS PyObject *ack_next(Ack *ack);
OURS PyObject *ack_send(Ack *ack, PyObject *value);
OURS PySendResult ack_am_send(PyObject *op, PyObject *value, PyObject **result);
OURS PyObject *ack_throw(Ack *ack, PyObject *const *args, Py_ssize_t count);
OURS PyObject *ack_close(Ack *ack, PyObject *ignored);

/* _result.c */
OURS PyObject *new_result(const uint64_t numbers[5], int durable);
OURS int result_import(void);

/* _callbacks.c */
OURS int call_soon(PyObject *loop, PyObject *callback, PyObject *argument, PyObject *context);
OURS int take_by_loop(void *taker, Ack *ack, PyObject *callback, PyObject *context);
OURS int detach(Ack *ack, Taker take, void *taker);
OURS Py_ssize_t callbacks_of(Ack *ack);
OURS PyObject *ack_add_done_callback(Ack *ack, PyObject *const *args, Py_ssize_t count, PyObject *names);
OURS PyObject *ack_remove_done_callback(Ack *ack, PyObject *wanted);
OURS int callbacks_import(void);

/* _waker.c */
extern OURS PyTypeObject WakerType;
OURS int waker_import(void);

/* _wakeup.c */
/* How wake-ups may be given at a moment: at once; by one callback of the loop that gives them all, while a task runs; or each
   through the loop, on another loop and in debug mode. */
enum way { AT_ONCE, LATER, EACH_BY_LOOP };
OURS PyObject *learn(PyObject *module, PyObject *callback);
OURS int is_wakeup(PyObject *callback);
OURS int way_to_wake(PyObject *loop);
OURS int wake_directly(PyObject *loop, Ack *ack, PyObject *callback, PyObject *context);
OURS int wakeup_import(void);
