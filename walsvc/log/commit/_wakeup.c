/* One task's wake-up: how it is known, when it may be called directly, and the call. The head of _ack.c has the conditions. */

#include "_ack.h"

static PyObject *current_task, *running_loop;   /* of asyncio */
static PyMethodDef *wakeup;                     /* of a task; NULL: not learned, every callback goes through call_soon */
static PyTypeObject *task_type;
static PyObject *s_get_debug, *s_handler;

/* learn(callback): what a task gives to add_done_callback is its wake-up. */
PyObject *learn(PyObject *Py_UNUSED(module), PyObject *callback)
{
    if (!PyCFunction_CheckExact(callback) || PyCFunction_GET_SELF(callback) == NULL)
        Py_RETURN_FALSE;
    wakeup = ((PyCFunctionObject *)callback)->m_ml;
    task_type = Py_TYPE(PyCFunction_GET_SELF(callback));
    Py_INCREF(task_type);
    Py_RETURN_TRUE;
}

/* Whether a callback is a task's own wake-up, as it was learned. */
int is_wakeup(PyObject *callback)
{
    if (wakeup == NULL || !PyCFunction_CheckExact(callback) || ((PyCFunctionObject *)callback)->m_ml != wakeup)
        return 0;
    PyObject *task = PyCFunction_GET_SELF(callback);
    return task != NULL && Py_TYPE(task) == task_type;
}

/* How wake-ups of tasks of this loop may be given at this moment; an enum way. -1: an error is set. */
int way_to_wake(PyObject *loop)
{
    PyObject *running = PyObject_CallNoArgs(running_loop);
    if (running == NULL)
        return -1;
    Py_DECREF(running);
    if (running != loop || wakeup == NULL)
        return EACH_BY_LOOP;
    PyObject *debug = PyObject_CallMethodNoArgs(loop, s_get_debug);
    int told = debug == NULL ? -1 : PyObject_IsTrue(debug);
    Py_XDECREF(debug);
    if (told != 0)
        return told < 0 ? -1 : EACH_BY_LOOP;
    PyObject *task = PyObject_CallOneArg(current_task, loop);
    if (task == NULL)
        return -1;
    Py_DECREF(task);
    return task == Py_None ? AT_ONCE : LATER;
}

/* Tell the loop's handler of the exception that is set. KeyboardInterrupt and SystemExit stay set: -1. */
static int told_of_error(PyObject *loop, PyObject *callback)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit))
        return -1;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *told = Py_BuildValue("{s:s,s:O}", "message", "walsvc: a task could not be woken", "exception", value);
    PyObject *answer = told == NULL ? NULL : PyObject_CallMethodOneArg(loop, s_handler, told);
    if (answer == NULL)
        PyErr_WriteUnraisable(callback);
    Py_XDECREF(answer);
    Py_XDECREF(told);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return 0;
}

/* Call a task's wake-up in its context. 1: it must go through the loop, since its context is entered already. */
int wake_directly(PyObject *loop, Ack *ack, PyObject *callback, PyObject *context)
{
    if (PyContext_Enter(context) < 0) {
        PyErr_Clear();
        return 1;
    }
    PyObject *answer = PyObject_CallOneArg(callback, (PyObject *)ack);
    int outcome = answer == NULL ? told_of_error(loop, callback) : 0;
    Py_XDECREF(answer);
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (PyContext_Exit(context) < 0)
        PyErr_WriteUnraisable(context);
    PyErr_Restore(type, value, trace);
    return outcome;
}

int wakeup_import(void)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio != NULL) {
        current_task = PyObject_GetAttrString(asyncio, "current_task");
        running_loop = PyObject_GetAttrString(asyncio, "_get_running_loop");
        Py_DECREF(asyncio);
    }
    s_get_debug = PyUnicode_InternFromString("get_debug");
    s_handler = PyUnicode_InternFromString("call_exception_handler");
    return PyErr_Occurred() ? -1 : 0;
}
