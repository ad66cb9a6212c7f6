/* Stands in for libedgetpu.so.1: the two functions of TensorFlow Lite's external delegates, and the delegate struct as
 * its C API has had it since 2.5 (tensorflow/lite/core/c/common.h, struct TfLiteDelegate).
 *
 * NO_DEVICE    gives no delegate. The real library says nothing; with SAYS it reports that text.
 * ABORTS       ends the process, as the real one does on USB errors.
 * LOG          a delegate that claims no operation, so that the model runs on the CPU; options go to this file.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct delegate {
  void *data;
  int (*prepare)(void *context, struct delegate *self);
  void *copy_from_buffer_handle, *copy_to_buffer_handle, *free_buffer_handle;
  int64_t flags;
  void *opaque_builder;
};

#ifdef LOG
static int claim_nothing(void *context, struct delegate *self) {
  (void)context;
  (void)self;
  return 0; /* kTfLiteOk */
}
#endif

struct delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                               void (*report_error)(const char *)) {
#if defined(NO_DEVICE)
  (void)keys, (void)values, (void)count, (void)report_error;
#ifdef SAYS
  report_error(SAYS);
#endif
  return NULL;
#elif defined(ABORTS)
  (void)keys, (void)values, (void)count, (void)report_error;
  fputs("F usb/usb_driver.cc: transfer on tag 1 failed. Abort.\n", stderr);
  abort();
#else
  (void)report_error;
  FILE *log = fopen(LOG, "a");
  if (log == NULL) return NULL;
  for (size_t i = 0; i < count; ++i) fprintf(log, "%s=%s\n", keys[i], values[i]);
  fputs("created\n", log);
  fclose(log);
  struct delegate *made = calloc(1, sizeof *made);
  made->prepare = claim_nothing;
  return made;
#endif
}

void tflite_plugin_destroy_delegate(struct delegate *made) {
#ifdef LOG
  FILE *log = fopen(LOG, "a");
  if (log != NULL) {
    fputs("destroyed\n", log);
    fclose(log);
  }
#endif
  free(made);
}
